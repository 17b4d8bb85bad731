"""What the stages of one cell share, and the lock that lets cells compute a shared artefact once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch

from dcodp.config import Config
from dcodp.data.types import DetectionSet
from dcodp.records import Record, RunFolder
from dcodp.tracking import Mirror

log = logging.getLogger(__name__)


@dataclass
class Cell:
    """What the stages of one cell share."""

    config: Config
    devices: list[torch.device]  # the first for all stages, all of them for training
    train_set: DetectionSet
    val_set: DetectionSet
    record: Record
    folder: RunFolder
    mirror: Mirror

    @property
    def device(self) -> torch.device:
        return self.devices[0]

    @property
    def cache(self) -> Path:
        return Path(self.config.paths.results) / "cache"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Cells that share an artefact wait here for the one that computes it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("waiting for another cell that computes %s", folder.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
