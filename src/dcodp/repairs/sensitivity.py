"""Measured rather than guessed: what a net's outputs lose when one group alone is pruned and repaired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dcodp.graph import Group
from dcodp.progress import track
from dcodp.pruning import PrunePlan, make_plan
from dcodp.pruning.selection import lowest_removed
from dcodp.repairs.cutting import Cutting, Lost
from dcodp.repairs.reuse import Reuse

WEIGHED_ON = 16  # calibration images on which whole nets that are as fast are held against each other
SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4)  # of a group's channels, removed in turn


def sensitivity(
    cutting: Cutting, scores: Mapping[str, Tensor], lost: Lost, shares: Sequence[float] = SHARES
) -> dict[str, list[tuple[float, float]]]:
    """{group: [(share of its channels removed, what the outputs lose)]}, lowest scores first, by `cutting` as it is for
    single groups.

    `lost` compares a network's outputs with the dense ones. A group without scores is left out.
    """
    single, reuse = cutting.of_single_groups(), Reuse(cutting.dense, lost)

    def measured(group: Group, share: float) -> float:
        plan = _without(cutting, scores[group.name], group, share)
        small, _ = single(plan)
        with reuse.applied(small, plan):
            return lost(small)

    groups = [group for group in cutting.evidence.subject.graph.groups if group.name in scores]
    return {
        group.name: [(share, measured(group, share)) for share in shares]
        for group in track(groups, "measuring what single groups are worth", len(groups))
    }


def _without(cutting: Cutting, scores: Tensor, group: Group, share: float) -> PrunePlan:
    """What leaves the dense net without this share of one group."""
    count = max(1, round(group.channels * (1 - share)))
    return make_plan(cutting.evidence.subject.graph, {group.name: lowest_removed(scores, group.channels, count)})
