"""The stages of a cell in order, from configuration to record."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dcodp.config import Config, to_dict
from dcodp.data.load import load
from dcodp.devices import devices_for
from dcodp.graph import CouplingGraph
from dcodp.identity import run_id
from dcodp.importance.criteria import criterion
from dcodp.importance.criterion import check
from dcodp.pipeline.cell import Cell
from dcodp.pipeline.fitting import dense_detector, fitted
from dcodp.pipeline.measuring import dense_evaluation, draw, evaluated
from dcodp.pipeline.notes import provenance, resumed_record, say_if_never_sparse, say_what_was_pruned
from dcodp.pipeline.scoring import channel_scores, coupling_graph, rescale_consumers
from dcodp.pruning import PrunePlan, prune, select
from dcodp.pruning.store import save
from dcodp.records import Record, is_done, read_record, recording, run_folder, timed, write_record
from dcodp.tracking import Mirror

log = logging.getLogger(__name__)


def run_cell(config: Config) -> Record:
    """Compute a cell, or return its record if it is there. Raises InputError for input that cannot be used."""
    check(config.importance.name, criterion(config.importance.name), config.importance.aggregate, config.scope)
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
        cell = Cell(config, devices, train_set, val_set, record, folder, mirror)
        _stages(cell)
    mirror.finish(record)
    return record


def _stages(cell: Cell) -> None:
    config, record = cell.config, cell.record
    with timed(record, "dense"):
        detector = dense_detector(cell)
        record.dense, dense_found = dense_evaluation(cell, detector)
        write_record(cell.folder, record)
    with timed(record, "score"):
        graph = coupling_graph(detector, config.image_size)
        scores = channel_scores(cell, detector, graph)
        say_if_never_sparse(record, config)
    with timed(record, "prune"):
        plan = pruning_plan(cell, graph, scores)
        small = detector.with_network(prune(detector.network, plan))
        rescale_consumers(cell, small, plan, graph)
        say_what_was_pruned(record, graph, scores, plan)
    with timed(record, "evaluate"):
        record.pruned, pruned_found = evaluated(cell, small, "pruned")
        write_record(cell.folder, record)
    found = {"dense": dense_found, "pruned": pruned_found}
    if config.finetune.epochs:
        with timed(record, "finetune"):
            fitted(cell, small, cell.folder.path / "finetune", config.finetune, "finetune")
        with timed(record, "evaluate"):
            record.finetuned, found["finetuned"] = evaluated(cell, small, "finetuned")
    save(small.network, plan, cell.folder.model)
    draw(cell, found)


def pruning_plan(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor]) -> PrunePlan:
    """Select channels; always written anew, since it follows from the scores in no time."""
    config = cell.config
    plan = select(
        graph, scores, config.ratio,
        round_to=config.round_to, interlayer=config.interlayer, scope=config.scope, target=config.target,
        comparable=criterion(config.importance.name).scale == "net",
    )  # fmt: skip
    plan.to_json(cell.folder.plan)
    return plan


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
