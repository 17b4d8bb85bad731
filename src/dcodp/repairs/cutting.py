"""From a plan to the net that it leaves, repaired: what everything that tries plans out has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from dcodp.calibration import Evidence
from dcodp.pruning import PrunePlan, prune
from dcodp.repairs.case import Case, Repair
from dcodp.repairs.methods import repair_named

Lost = Callable[[nn.Module], float]  # what a net's outputs lose beside the dense one's


@dataclass(frozen=True, eq=False)
class Cutting:
    """How the net that `evidence` is of is cut and repaired; the other fields as of a `Case`."""

    evidence: Evidence
    repair: Repair
    batches: Callable[[], Iterable[Any]]
    forward: Callable[[nn.Module], Callable[[Any], Any]]

    @property
    def dense(self) -> nn.Module:
        return self.evidence.subject.network

    def __call__(self, plan: PrunePlan) -> tuple[nn.Module, list[str]]:
        """The repaired net, and notes on what the repair could not do."""
        small = prune(self.dense, plan)
        return small, self.mend(small, plan)

    def mend(self, small: nn.Module, plan: PrunePlan) -> list[str]:
        """Repairs what `plan` left, in place; returns notes."""
        return self.repair.mend(Case(self.dense, small, plan, self.evidence, self.batches, self.forward))

    def losing(self, lost: Lost) -> Callable[[PrunePlan], float]:
        """Plan → what the repaired net loses."""
        return lambda plan: lost(self(plan)[0])

    def of_single_groups(self) -> Cutting:
        """As this one for many small cuts: the cheaper repair that stands for it there, on the first batch alone.

        Batch norms, say, are corrected for all groups together only: that takes passes of its own.
        """
        single = self.repair if self.repair.single is None else repair_named(self.repair.single)
        first = [next(iter(self.batches()))]
        return replace(self, repair=single, batches=lambda: first)
