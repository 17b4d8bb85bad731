"""Selecting channels, slicing models, storing the result: `select` → `PrunePlan` → `prune` → `save` / `load`."""

from dcodp.pruning.making import make_plan
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.selection import select
from dcodp.pruning.slicing import prune
from dcodp.pruning.store import load, save

__all__ = ["PrunePlan", "load", "make_plan", "prune", "save", "select"]
