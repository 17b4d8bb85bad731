"""Training: the dense detector, once for all cells that share it, and the fine-tuning of a pruned one."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.config import TrainSettings
from dcodp.data.types import Batch
from dcodp.detectors.base import Detector
from dcodp.detectors.registry import build
from dcodp.errors import InputError
from dcodp.evaluation.measuring import fitness
from dcodp.importance.slimming import prunable_scales, sparsity_penalty
from dcodp.pipeline.cell import Cell, locked
from dcodp.pipeline.memory import explained, training_step
from dcodp.pipeline.timing import require_timeable
from dcodp.pruning import prune
from dcodp.records import RunFolder, append_metrics, read_metrics, tell_progress
from dcodp.stepping import epochs_of
from dcodp.training.files import is_done
from dcodp.training.objective import Term

log = logging.getLogger(__name__)
OTHER_SEED = 1_000_003  # what is added to the run's for weights that have nothing to do with the dense net's


def dense_detector(cell: Cell) -> Detector:
    """The dense detector, trained (or loaded) once for all cells with the same settings."""
    config = cell.config
    torch.manual_seed(config.seed)
    detector, notes = build(config.model, cell.train_set.classes)
    for note in notes:
        log.warning("%s", note)
    cell.record.notes = list(dict.fromkeys([*cell.record.notes, *notes]))
    require_timeable(config, detector)
    detector.network.to(cell.device)
    folder = cell.dense_folder
    settings = dataclasses.replace(config.train, labels=True, distill=0.0)  # the dense net has no teacher
    with nullcontext() if is_done(folder) else locked(folder):
        fitted(cell, detector, folder, settings, "train", _terms(detector, config.image_size, settings))
    return detector


def finetuned(cell: Cell, step: int) -> None:
    """Trains the pruned net on."""
    config = cell.config
    epochs = epochs_of(config.finetune.epochs, step, config.steps)
    settings = dataclasses.replace(config.finetune, epochs=len(epochs))
    if config.control == "scratch":
        start_from_scratch(cell)
    terms = _terms(cell.nets.now, config.image_size, settings) | _teaching(cell, settings)
    fitted(cell, cell.nets.now, cell.step_folder(step) / "finetune", settings, "finetune", terms, epochs.start)


def start_from_scratch(cell: Cell) -> None:
    """The control: the pruned architecture with random weights, as its family's builder draws them.

    They are cut from a dense net that was never trained, and not the one that the trained dense net began as: the
    kept part of that one's first weights would be a lottery ticket (arXiv 1803.03635), not a control.
    """
    config, nets = cell.config, cell.nets
    assert nets.plan is not None
    torch.manual_seed((config.seed + OTHER_SEED) % 2**32)
    bare = dataclasses.replace(config.model, weights=None, backbone_weights=None)
    dense = build(bare, nets.dense.classes)[0].in_shapes_of(nets.dense)
    before = nets.dense.pruned_by
    whole = nets.plan if before is None else before.then(nets.plan)
    nets.now = dense.with_network(prune(dense.network, whole).to(cell.device))
    note = "control=scratch: the pruned architecture was trained from random weights; nothing of the dense net is left"
    cell.record.notes = list(dict.fromkeys([*cell.record.notes, note]))


def fitted(
    cell: Cell,
    detector: Detector,
    folder: Path,
    settings: TrainSettings,
    stage: str,
    terms: dict[str, Term],
    before: int = 0,
) -> None:
    """Train in place, or load what is there; the best weights are in the detector afterwards. `before`: the epochs of
    earlier steps."""
    from dcodp.data.augment import TrainingBatches
    from dcodp.training import load_best, train

    config = cell.config

    # Partials rather than closures: the processes of a training on several devices are given them.
    on_val = {"detection_set": cell.val_set, "image_size": config.image_size, "settings": config.evaluation}
    batches = TrainingBatches(cell.train_set, config.image_size, settings, config.seed, before)
    told = {**cell.told, "stage": stage, "epochs": before + settings.epochs}
    watched = partial(_tell_epoch, cell.folder.progress, told)
    with explained(f"{stage}.batch", settings.batch, cell.device, training_step(detector, batches, terms, cell.device)):
        train(
            detector, batches, settings, folder,
            seed=config.seed, devices=cell.devices, validate=partial(fitness, **on_val), terms=terms, on_epoch=watched,
        )  # fmt: skip
    load_best(detector, folder)
    detector.network.eval()
    _require_all_epochs(folder / "metrics.jsonl", settings.epochs)
    _mirror_metrics(cell, folder / "metrics.jsonl", stage)


def _tell_epoch(path: Path, told: dict[str, Any], row: dict[str, Any]) -> None:
    tell_progress(path, {**told, "epoch": row["epoch"], "seconds": row["seconds"]})


def _require_all_epochs(path: Path, epochs: int) -> None:
    """Raises InputError where lines of a finished training are gone: each epoch's was there before its weights."""
    if (rows := len(_rows(path))) < epochs:
        raise InputError(
            f"{path} holds {rows} of {epochs} epochs, so it is damaged; delete {path.parent} to train anew"
        )


def _terms(detector: Detector, image_size: int, settings: TrainSettings) -> dict[str, Term]:
    """What is added to the detector's loss: Network Slimming's penalty on the scales that can be removed."""
    if not settings.sparsity:
        return {}
    names = prunable_scales(detector.network, detector.coupling_graph(image_size))
    return {"sparsity": partial(_sparsity, rate=settings.sparsity, names=names)}


def _sparsity(network: nn.Module, batch: Batch, outputs: Any, rate: float, names: list[str]) -> Tensor:
    return sparsity_penalty(network, rate, names)


def _teaching(cell: Cell, settings: TrainSettings) -> dict[str, Term]:
    """What the dense net teaches the present one, where that is asked for."""
    from dcodp.training.distillation import distillation

    nets = cell.nets
    if not settings.distill:
        return {}
    assert nets.plan is not None
    weights = settings.distill, settings.distill_features
    return {"distill": distillation(nets.dense, nets.now.network, nets.graph, nets.plan, *weights)}


def _mirror_metrics(cell: Cell, path: Path, stage: str) -> None:
    """Copy a phase's per-epoch lines into the run's metrics.jsonl and to W&B, once."""
    known = {(row.get("stage"), row.get("epoch")) for row in _rows(cell.folder.metrics)}
    for row in _rows(path):
        row = {"stage": stage, **row}
        if (stage, row.get("epoch")) not in known:
            append_metrics(cell.folder, row)
            cell.mirror.log(row)


def _rows(path: Path) -> list[dict[str, Any]]:
    return read_metrics(RunFolder(path.parent))
