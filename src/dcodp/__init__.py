"""dcodp: structured pruning for object detectors by dual coupledness.

Names are resolved on first use, so that reading records and rendering reports needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dcodp.extras import told_if_missing

__version__ = "0.2.0"

if TYPE_CHECKING:
    from dcodp import evaluation, importance, testing
    from dcodp.errors import InputError
    from dcodp.graph import CouplingGraph, trace
    from dcodp.importance.scoring import score
    from dcodp.pruning import PrunePlan, load, prune, save, select
    from dcodp.repairs import repair

_HOME = {
    "InputError": "dcodp.errors",
    "CouplingGraph": "dcodp.graph",
    "trace": "dcodp.graph",
    "PrunePlan": "dcodp.pruning",
    "load": "dcodp.pruning",
    "prune": "dcodp.pruning",
    "repair": "dcodp.repairs",
    "save": "dcodp.pruning",
    "score": "dcodp.importance.scoring",
    "select": "dcodp.pruning",
}
_MODULES = ("calibration", "evaluation", "export", "graph", "importance", "pruning", "repairs", "testing", "yolo")

__all__ = [
    "CouplingGraph", "InputError", "PrunePlan", "evaluation", "importance", "load", "prune", "repair", "save", "score",
    "select", "testing", "trace",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        with told_if_missing():  # evaluation reads images, yolo needs ultralytics
            return import_module(f"dcodp.{name}")
    raise AttributeError(f"module 'dcodp' has no attribute {name!r}")
