"""Out of memory on a GPU, as one line that says which batch would fit: that is tried, not guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import traceback
from collections.abc import Callable, Iterator, Mapping

import torch

from dcodp.config import TrainSettings
from dcodp.data.augment import TrainingBatches
from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.training.objective import Objective, Term, Whole
from dcodp.training.processes import make_fabric

STATES = 3  # tensors of a parameter's size that training keeps beside it and its gradient: AdamW's two, the average's


@contextlib.contextmanager
def explained(
    key: str, batch: int, device: torch.device, fits: Callable[[int], object] | None = None
) -> Iterator[None]:
    """torch.OutOfMemoryError within becomes an InputError that names the setting `key`, and the largest of the halves
    of `batch` with which `fits` runs through, where it is given."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        told = str(error).split(". ")[0]
    else:
        return
    raise InputError(f"{key}={batch} does not fit into the memory of {device} ({told}); {_remedy(key, batch, fits)}")


def _remedy(key: str, batch: int, fits: Callable[[int], object] | None) -> str:
    if fits is None:
        return f"set {key}={max(1, batch // 2)}, or lower image_size"
    best = next((size for size in _halves(batch) if _runs(fits, size)), None)
    return "not even 1 fits: lower image_size" if best is None else f"{key}={best} fits"


def _halves(batch: int) -> Iterator[int]:
    while batch > 1:
        batch //= 2
        yield batch


def _runs(fits: Callable[[int], object], size: int) -> bool:
    _empty()
    try:
        fits(size)
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        _empty()
    return True


def _empty() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def training_step(
    detector: Detector, batches: TrainingBatches, terms: Mapping[str, Term], device: torch.device
) -> Callable[[int], None]:
    """batch size → one step of a training with all that it keeps in memory; nothing is learned from it."""

    def step(size: int) -> None:
        settings: TrainSettings = dataclasses.replace(batches.settings, batch=size)
        few = TrainingBatches(batches.detection_set, batches.image_size, settings, batches.seed)
        network = detector.network.to(device).train()
        network.zero_grad()
        states = [torch.empty_like(p) for p in network.parameters() for _ in range(STATES)]
        batch = next(iter(few.epoch(0, 0, 1))).to(device)
        with make_fabric([device], settings.amp, settings.amp_on_cpu).autocast():
            loss, _ = Objective(detector, terms, settings.labels)(Whole(batch))
        loss.backward()
        network.zero_grad()
        del states

    return step
