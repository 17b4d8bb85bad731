"""Measured rather than guessed: what a net's outputs lose when one group alone is pruned and repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dcodp.calibration import Evidence
from dcodp.graph import Group
from dcodp.progress import track
from dcodp.pruning import PrunePlan, make_plan, prune
from dcodp.pruning.selection import lowest_removed
from dcodp.repairs.case import Case, Repair
from dcodp.repairs.reuse import Reuse

WEIGHED_ON = 16  # calibration images on which whole nets that are as fast are held against each other
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of a group's channels, removed in turn


def sensitivity(
    evidence: Evidence,
    scores: Mapping[str, Tensor],
    repair: Repair,
    batches: Callable[[], Iterable[Any]],
    forward: Callable[[nn.Module], Callable[[Any], Any]],
    lost: Callable[[nn.Module], float],
    shares: Sequence[float] = SHARES,
) -> dict[str, list[tuple[float, float]]]:
    """{group: [(share of its channels removed, what the outputs lose)]}, lowest scores first.

    `evidence` holds what `repair` requires, `batches` and `forward` are as for a `Case`; `lost(network)` compares a
    network's outputs with the dense ones. A group without scores is left out.
    """
    reuse = Reuse(evidence.subject.network, lost)

    def measured(group: Group, share: float) -> float:
        small, plan = _repaired(evidence, scores[group.name], repair, batches, forward, group, share)
        with reuse.applied(small, plan):
            return lost(small)

    groups = [group for group in evidence.subject.graph.groups if group.name in scores]
    return {
        group.name: [(share, measured(group, share)) for share in shares]
        for group in track(groups, "measuring what single groups are worth", len(groups))
    }


def _repaired(
    evidence: Evidence,
    scores: Tensor,
    repair: Repair,
    batches: Callable[[], Iterable[Any]],
    forward: Callable[[nn.Module], Callable[[Any], Any]],
    group: Group,
    share: float,
) -> tuple[nn.Module, PrunePlan]:
    """The dense net without this share of one group, and the plan that leads to it."""
    subject = evidence.subject
    count = max(1, round(group.channels * (1 - share)))
    plan = make_plan(subject.graph, {group.name: lowest_removed(scores, group.channels, count)})
    small = prune(subject.network, plan)
    repair.mend(Case(subject.network, small, plan, evidence, batches, forward))
    return small, plan
