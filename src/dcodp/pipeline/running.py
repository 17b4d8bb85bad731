"""One cell from configuration to record."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from dcodp.config import Config, splits, to_dict
from dcodp.data.splits import load
from dcodp.devices import devices_for
from dcodp.files import unwritable
from dcodp.identity import run_id
from dcodp.importance.criteria import criterion
from dcodp.importance.criterion import check
from dcodp.pipeline.cell import Cell
from dcodp.pipeline.notes import provenance, resumed_record
from dcodp.pipeline.pruning import repair_of
from dcodp.pipeline.stages import run_stages, share
from dcodp.records import Record, RunFolder, claim, is_done, keeping, read_record, run_folder, shared_folder
from dcodp.tracking import Mirror, sync

log = logging.getLogger(__name__)


def run_cell(config: Config, wait: bool = False) -> Record:
    """Compute a cell, or return its record if it is there (and mirror it, if that did not succeed before). Another
    process that computes it is waited for if `wait` is on. Raises InputError for input that cannot be used."""
    check_method(config)
    folder = run_folder(Path(config.paths.results), run_id(config))
    if is_done(folder):
        log.info("%s is there already", folder.run_id)
        record = read_record(folder)
        sync(config.wandb, record, Path(config.paths.results), config.wandb.group)
        return record
    with claim(folder, wait):
        if is_done(folder):  # by the process that was waited for
            return read_record(folder)
        record = resumed_record(folder, config)
        with keeping(folder, record), _started(config, folder, record) as cell:
            run_stages(cell)
    cell.mirror.finish(record)
    return record


def prepare(configs: Sequence[Config], kind: str, name: str, launch: str) -> Record:
    """Compute what cells share, ahead of them: of kind "dense" the trained net and its figures, of kind "scores" also
    what calibration shows of it, the scores and what pruning single groups does, for each of these configurations.

    results/jobs/<name> has its record; `launch` names the sweep that asked for it. No device is taken while another
    process that does the same is waited for.
    """
    config = dataclasses.replace(configs[0], wandb=dataclasses.replace(configs[0].wandb, mode="disabled"))
    folder = shared_folder(Path(config.paths.results), name)
    with claim(folder, wait=True):
        record = Record(folder.run_id, config=to_dict(config), notes=[f"{kind} of what several cells share"])
        record.provenance["launch"] = launch
        with keeping(folder, record), _started(config, folder, record) as cell:
            record.provenance["launch"] = launch
            share(cell, configs, kind)
    return record


@contextlib.contextmanager
def _started(config: Config, folder: RunFolder, record: Record) -> Iterator[Cell]:
    """The cell on its devices and with its data, its log open."""
    with _logged_to(folder.log), devices_for(config.device, config.devices) as devices:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        log.info("%s on %s", folder.run_id, ", ".join(map(str, devices)))
        data, results = Path(config.paths.data), Path(config.paths.results)
        sets = {split: load(config.dataset, data, split) for split in splits(config.dataset)}
        record.provenance = provenance(config, devices, list(sets.values()), record)
        mirror = Mirror(config.wandb, folder.run_id, config.wandb.group, results, to_dict(config))
        yield Cell(config, devices, sets, record, folder, mirror)


def check_method(config: Config) -> None:
    """Raises InputError where the parts of the method are not known or do not go together."""
    chosen, ranked = criterion(config.importance.name), config.allocation.name == "global"
    check(config.importance.name, chosen, config.importance.aggregate, ranked)
    repair_of(config)


class _Log(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A line that a full disk does not take is left out; what needs the room says so, once."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Everything that is logged while the cell runs also goes to its log.txt."""
    try:
        handler = _Log(path)
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("dcodp").setLevel(logging.INFO)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the disk may be full
            traceback.print_exc(file=handler.stream)  # in full here; the terminal gets one line
        raise
    finally:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
