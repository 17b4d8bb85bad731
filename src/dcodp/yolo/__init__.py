"""From anybody's best.pt to a small detector, and on with ultralytics' own tools.

from dcodp.yolo import PrunedTrainer, prune_checkpoint
prune_checkpoint("best.pt", data="data.yaml", target="flops:0.5", out="small")
YOLO("small/small.pt").train(trainer=PrunedTrainer, data="data.yaml", epochs=50)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcodp.yolo.asking import Job
    from dcodp.yolo.job import prune_checkpoint
    from dcodp.yolo.trainers import PrunedTrainer

__all__ = ["Job", "PrunedTrainer", "prune_checkpoint"]

_PLACES = {"PrunedTrainer": "trainers", "prune_checkpoint": "job", "Job": "asking"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
