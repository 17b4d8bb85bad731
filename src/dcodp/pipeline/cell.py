"""What the stages of one cell share, and the lease that lets cells compute a shared artefact once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from dcodp.config import Config
from dcodp.data.types import DetectionSet
from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.evaluation.measuring import Predictions
from dcodp.files import leased
from dcodp.graph import CouplingGraph
from dcodp.identity import dense_key, evidence_key, scores_key
from dcodp.pruning import PrunePlan
from dcodp.records import Record, RunFolder, tell_progress
from dcodp.tracking import Mirror

log = logging.getLogger(__name__)
Stored = TypeVar("Stored")


@dataclass(init=False)
class Nets:
    """The detectors of a cell and what belongs to them; each is there from the stage on that computes it."""

    dense: Detector
    now: Detector  # the dense one at first, then what pruning, repair and fine-tuning leave
    before: Detector  # what was pruned last
    graph: CouplingGraph  # of `before`
    scores: dict[str, Tensor]  # of its groups
    latest: PrunePlan  # from `before` to `now`
    plan: PrunePlan | None  # from `dense` to `now`
    found: dict[str, Predictions]  # by each stage's net in the validation images

    def __init__(self) -> None:
        self.plan, self.found = None, {}


@dataclass
class Cell:
    """What the stages of one cell share."""

    config: Config
    devices: list[torch.device]  # the first for all stages, all of them for training
    sets: dict[str, DetectionSet]  # "train", "val", and "test" if there is one
    record: Record
    folder: RunFolder
    mirror: Mirror
    nets: Nets = field(default_factory=Nets)
    told: dict[str, Any] = field(default_factory=dict)  # what those who watch know of the stage

    @property
    def train_set(self) -> DetectionSet:
        return self.sets["train"]

    @property
    def val_set(self) -> DetectionSet:
        """Which decides: the best epoch of a training."""
        return self.sets["val"]

    @property
    def test_set(self) -> DetectionSet:
        """Whose figures are recorded."""
        return self.sets.get("test", self.val_set)

    @property
    def device(self) -> torch.device:
        return self.devices[0]

    @property
    def cache(self) -> Path:
        return Path(self.config.paths.results) / "cache"

    @property
    def dense_folder(self) -> Path:
        return self.cache / "dense" / dense_key(self.config)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Where the work is, for those who watch: so many of all its stages are done."""
        device = ", ".join(map(str, dict.fromkeys(self.devices)))
        self.told = {"stage": stage, "stages_done": done, "stages": total, "device": device}
        tell_progress(self.folder.progress, self.told)

    def step_folder(self, step: int) -> Path:
        """Where the artefacts of a step lie: those of the only one in the run's folder itself."""
        return self.folder.path if self.config.steps == 1 else self.folder.path / f"step-{step}"

    def evidence_folder(self, step: int) -> Path:
        """What the first step sees is the dense net, which cells share; later steps see nets of this cell alone."""
        if step == 1:
            return self.cache / "evidence" / evidence_key(self.config)
        return self.step_folder(step) / "evidence"

    def scores_folder(self, step: int) -> Path:
        return self.cache / "scores" / scores_key(self.config) if step == 1 else self.step_folder(step) / "scores"


def locked(folder: Path) -> AbstractContextManager[None]:
    """Cells that share an artefact wait here for the one that computes it."""
    return leased(folder, f"{folder.parent.name} {folder.name}")


def once(folder: Path, find: Callable[[], Stored | None], make: Callable[[], Stored]) -> Stored:
    """What `find` finds, else what `make` makes; of cells that share it one makes it, and the others wait for that one.

    What is there is whole, so nobody waits to read it.
    """
    if (found := find()) is not None:
        return found
    with locked(folder):
        return found if (found := find()) is not None else make()


def whole(path: Path, read: Callable[[Path], Stored]) -> Stored | None:
    """The content of an artefact that costs little to make again; None where it is not there or cannot be read."""
    if not path.exists():
        return None
    try:
        return read(path)
    except InputError as error:
        log.warning("%s; it is made again", error)
        return None
