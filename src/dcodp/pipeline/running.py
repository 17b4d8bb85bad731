"""One cell from configuration to record."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from dcodp.config import Config, to_dict
from dcodp.data.splits import load
from dcodp.devices import devices_for
from dcodp.identity import run_id
from dcodp.importance.criteria import criterion
from dcodp.importance.criterion import check
from dcodp.pipeline.cell import Cell
from dcodp.pipeline.notes import provenance, resumed_record
from dcodp.pipeline.pruning import repair_of
from dcodp.pipeline.stages import run_stages
from dcodp.records import Record, is_done, read_record, recording, run_folder
from dcodp.tracking import Mirror

log = logging.getLogger(__name__)


def run_cell(config: Config) -> Record:
    """Compute a cell, or return its record if it is there. Raises InputError for input that cannot be used."""
    check_method(config)
    folder = run_folder(Path(config.paths.results), run_id(config))
    if is_done(folder):
        log.info("%s is there already", folder.run_id)
        return read_record(folder)
    record = resumed_record(folder, config)
    with recording(folder, record), _logged_to(folder.log), devices_for(config.device, config.devices) as devices:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        log.info("%s on %s", folder.run_id, ", ".join(map(str, devices)))
        data = Path(config.paths.data)
        train_set, val_set = (load(config.dataset, data, split) for split in ("train", "val"))
        record.provenance = provenance(config, devices, [train_set, val_set], record)
        results = Path(config.paths.results)
        mirror = Mirror(config.wandb, folder.run_id, config.wandb.group, results, to_dict(config))
        run_stages(Cell(config, devices, train_set, val_set, record, folder, mirror))
    mirror.finish(record)
    return record


def check_method(config: Config) -> None:
    """Raises InputError where the parts of the method are not known or do not go together."""
    chosen, ranked = criterion(config.importance.name), config.allocation.name == "global"
    check(config.importance.name, chosen, config.importance.aggregate, ranked)
    repair_of(config)


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Everything that is logged while the cell runs also goes to its log.txt."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("dcodp").setLevel(logging.INFO)
    try:
        yield
    except BaseException:
        traceback.print_exc(file=handler.stream)  # in full here; the terminal gets one line
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
