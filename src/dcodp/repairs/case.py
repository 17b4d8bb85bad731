"""What a repair is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dcodp.calibration import Evidence, Statistic
from dcodp.pruning import PrunePlan


@dataclass(frozen=True, eq=False)
class Case:
    """A pruned net beside the net that it was before.

    `evidence` is of the dense net and holds the statistics that the repair requires. `batches` gives the calibration
    batches, anew at every call; `forward(network)` gives the function that runs a network on one of them.
    """

    dense: nn.Module
    pruned: nn.Module
    plan: PrunePlan
    evidence: Evidence
    batches: Callable[[], Iterable[Any]]
    forward: Callable[[nn.Module], Callable[[Any], Any]]


@dataclass(frozen=True)
class Repair:
    """`mend` changes `case.pruned` in place, names and shapes stay; it returns notes on what it could not do.

    `single`: the name of the cheaper repair that stands for it where single groups are tried out; None: itself.
    """

    requires: tuple[Statistic, ...]
    mend: Callable[[Case], list[str]]
    single: str | None = None
