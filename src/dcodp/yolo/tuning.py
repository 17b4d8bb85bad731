"""The pruned net is trained on by ultralytics' own trainer; what stops half-way goes on where it stopped."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.writing import write_pt
from dcodp.errors import InputError
from dcodp.files import refusal, unwritable
from dcodp.graph import CouplingGraph
from dcodp.pruning import PrunePlan
from dcodp.training.distillation import Distillation, distillation
from dcodp.yolo.images import Images, place_font
from dcodp.yolo.teaching import Teaching

SEEN = 10_000  # images that a training shows by default, over as many epochs as that takes
FEWEST, MOST = 10, 50  # epochs


@dataclass(frozen=True)
class Tuning:
    """How a pruned net is trained on; whatever else ultralytics' trainer takes is in `further`."""

    epochs: int
    batch: int = 16
    lr: float = 1e-3
    distill: float = 1.0
    distill_features: float = 1.0
    seed: int = 0
    device: str | None = None
    workers: int = 0
    further: tuple[tuple[str, Any], ...] = ()


def usual_lr(images: int) -> float:
    """1e-3 for up to a thousand images; thousands end higher at a lower rate (results/voc_resplit)."""
    return 1e-3 if images <= 1000 else 3e-4


def usual_epochs(images: int) -> int:
    """49 for 205 images, 10 for a thousand and more."""
    return max(FEWEST, min(MOST, round(SEEN / max(images, 1))))


def tuned(
    small: nn.Module,
    teacher: UltralyticsNet,
    graph: CouplingGraph,
    plan: PrunePlan,
    images: Images,
    size: int,
    settings: Tuning,
    folder: Path,
) -> Path:
    """Trains a marked net (`writing.mark`) under FOLDER and returns the best checkpoint that came of it.

    `teacher` is the net that `plan` was made for, and `graph` its trace.
    """
    from dcodp.yolo.trainers import trainer_class

    place_font()
    start, last = folder / "start.pt", folder / "train" / "weights" / "last.pt"
    task = teacher.network.task  # type: ignore[union-attr]
    kind = trainer_class(str(task), type(small).__name__)
    going_on = last.exists() and not _is_finished(last)
    if last.exists() and not going_on:
        return _best(last)
    if not going_on:
        write_pt(small, start, {"task": task, "imgsz": size})
    overrides = _overrides(task, start, images, size, settings, folder)
    if going_on:
        overrides |= {"model": str(last), "resume": str(last)}
    trainer = kind(overrides=overrides)
    if settings.distill:
        trainer.teaching = Teaching(_term(teacher, small, graph, plan, settings))
    try:
        trainer.train()
    except Exception as error:
        if not isinstance(error, InputError) and (refused := refusal(folder)):
            raise unwritable(last, refused) from error
        raise
    return _best(last)


def _is_finished(last: Path) -> bool:
    """Ultralytics strips the optimiser, and sets the epoch to -1, when a training is through."""
    return read_checkpoint(last).epoch == -1


def _best(last: Path) -> Path:
    best = last.with_name("best.pt")
    return best if best.exists() else last


def _overrides(task: Any, start: Path, images: Images, size: int, settings: Tuning, folder: Path) -> dict[str, Any]:
    """Ultralytics' arguments. Its own choices for short trainings of small sets are not for a net that has learnt
    already: no warm-up of biases from 0.1, an update after every batch, mosaic off for the last fifth."""
    epochs = settings.epochs
    return {
        "task": task, "mode": "train", "model": str(start), "data": str(images.data), "epochs": epochs,
        "imgsz": size, "batch": settings.batch, "nbs": settings.batch, "optimizer": "AdamW", "lr0": settings.lr,
        "lrf": 0.01, "cos_lr": True, "momentum": 0.9, "warmup_epochs": min(1.0, epochs / 10), "warmup_bias_lr": 0.0,
        "close_mosaic": max(1, epochs // 5), "seed": settings.seed, "device": settings.device,
        "workers": settings.workers, "plots": False, "patience": epochs, "amp": False, "verbose": False,
        "project": str(folder.resolve()), "name": "train", "exist_ok": True,
        "save_dir": str(folder.resolve() / "train"),
        **dict(settings.further),
    }  # fmt: skip


def _term(
    teacher: UltralyticsNet, small: nn.Module, graph: CouplingGraph, plan: PrunePlan, settings: Tuning
) -> Distillation:
    """What a transformer's decoder reads is left out: in training it has further queries."""
    plain = teacher.with_network(copy.deepcopy(teacher.network))
    term = distillation(plain, small, graph, plan, settings.distill, settings.distill_features)
    if teacher.is_transformer:
        decoder = f"model.{len(small.model) - 1}."  # type: ignore[arg-type]
        term.kept = {name: kept for name, kept in term.kept.items() if not name.startswith(decoder)}
    return term
