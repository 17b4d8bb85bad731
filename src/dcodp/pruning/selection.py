"""From scores to a plan: which channels of every coupling group are removed."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.pruning.allocation import CLOSE, Counts, Ranking, check_reached, counts_for, local_counts, share_left
from dcodp.pruning.allocation import kept_count as kept_count
from dcodp.pruning.cost_aware import CostAware, cost_aware_counts
from dcodp.pruning.costs import Cost
from dcodp.pruning.making import make_plan
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.wrappers import wrapper_of
from dcodp.targets import parse_target

Allocation = Literal["uniform", "global", "cost"]
log = logging.getLogger(__name__)
SHOWN = 8  # names in one line of the log
# Channels that most runtimes compute at a time: such nets are faster and lose little by it (results/channel_blocks.md)
BLOCK = 8


def select(
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    ratio: float | Mapping[str, float] = 0.5,
    *,
    round_to: int | None = 1,
    min_channels: int = 1,
    ignore: Sequence[str] = (),
    interlayer: bool = True,
    allocation: Allocation | CostAware | str = "uniform",
    target: str | None = None,
    comparable: bool = False,
    costs: Mapping[str, Cost] | None = None,
) -> PrunePlan:
    """Remove the lowest-scored channels of the coupling groups.

    `scores[group.name]` is a tensor [channels]; a group without scores is left alone, which is logged and stands in
    the plan's settings as "unscored". `allocation="uniform"` removes
    `ratio` of the channels of every group (the paper's local pruning, Eq. 11); ratios may be given per group (name
    patterns → ratios). `allocation="global"` removes the lowest `ratio` of all channels together, after
    `allocation.Ranking` has put the groups on one scale, or as they are where scores of different groups are
    `comparable` (a sum over a group's layers is not). `target` ("flops:0.5", "parameters:0.5": the share to keep,
    frozen layers included) takes the place of `ratio`: the ratio or threshold that meets it within 1 % of the dense
    net is found by counting. "latency:0.5" goes by the cost that `costs["latency"]` measured (`dcodp.export`).

    At least `min_channels` channels stay, and kept channels are a multiple of `round_to`, both where the group is large
    enough; `round_to=None` is blocks of eight where a target is met with them, else any counts. `ignore` are patterns
    (as in the shell) of layer or group names to leave alone; one that matches nothing is an error. `interlayer=False`
    leaves coupled groups (`Group.coupled`) alone.

    Raises InputError for scores of the wrong shape or with NaN, numbers out of range, unmatched patterns, an unknown
    allocation and a target that cannot be met.
    """
    if round_to is None:
        among: dict[str, Any] = {"min_channels": min_channels, "ignore": ignore, "interlayer": interlayer}
        among |= {"allocation": allocation, "target": target, "comparable": comparable, "costs": costs}
        return _in_blocks(graph, scores, ratio, **among)
    _check(graph, scores)
    allocation = _known(allocation, {"round_to": round_to, "min_channels": min_channels})
    ratios = _ratios(graph.groups, ratio)
    if isinstance(ratio, Mapping) and (target is not None or allocation != "uniform"):
        raise InputError("ratios per group are for allocation=uniform without a target; give one number")
    left_alone, unscored = _matched(graph.groups, ignore), _unscored(graph.groups, scores)
    free = [g for g in graph.groups if g.name in scores and g.name not in left_alone and (interlayer or not g.coupled)]
    name = "cost" if isinstance(allocation, CostAware) else allocation
    settings = {"ratio": dict(ratio) if isinstance(ratio, Mapping) else ratio, "round_to": round_to,
                "min_channels": min_channels, "ignore": list(ignore), "interlayer": interlayer,
                "allocation": name, "target": target, "comparable": comparable}  # fmt: skip
    settings |= {"unscored": unscored} if unscored else {}
    asked = _Asked(graph, free, scores, round_to, min_channels, costs or {})
    if isinstance(allocation, CostAware):
        counts = asked.by_cost(_trusted(allocation, comparable), ratios, target)
    elif target is None and allocation == "uniform":
        counts = asked.uniform(ratios)
    else:
        counts, settings["kept_share"] = asked.met(ratio, target, allocation, comparable)
        settings |= {"ratio": None} if target is not None else {}
    keep = {g.name: lowest_removed(scores[g.name], g.channels, counts[g.name]) for g in free}
    return make_plan(graph, keep, settings)


@dataclass(frozen=True)
class _Asked:
    """What every way of allocating counts looks at: the groups that may lose channels, and what bounds their counts."""

    graph: CouplingGraph
    free: Sequence[Group]
    scores: Mapping[str, Tensor]
    round_to: int
    min_channels: int
    costs: Mapping[str, Cost]

    def uniform(self, ratios: Mapping[str, float]) -> Counts:
        """The ratio of its own in every group."""
        return local_counts(self.free, ratios, self.round_to, self.min_channels)

    def by_cost(self, allocation: CostAware, ratios: Mapping[str, float], target: str | None) -> Counts:
        """The lowest loss for what it saves goes first; without a target, to the FLOPs that the ratios would leave."""
        if target is None:
            kind, wanted = "flops", share_left(self.graph, "flops", self.scores)(self.uniform(ratios))
        else:
            kind, wanted = parse_target(target)
        return cost_aware_counts(
            allocation, self.graph, self.free, self.scores, kind, wanted, self.round_to, self.min_channels, self.costs
        )

    def met(self, ratio: Any, target: str | None, allocation: str, comparable: bool) -> tuple[Counts, float]:
        """Counts that leave the share wanted of the net's cost, or of the free channels, and the share that they leave.

        The ratio of all groups (uniform), or the threshold of all channels (global), is found by counting.
        """
        kind, wanted = parse_target(target) if target is not None else ("channels", 1 - float(ratio))
        left = share_left(self.graph, kind, self.scores, self.costs)
        ranking = Ranking(self.free, self.scores, comparable)

        def counts_at(share: float) -> Counts:
            if allocation == "global":
                return ranking.counts(share, self.round_to, self.min_channels)
            return self.uniform({g.name: share for g in self.free})

        counts = counts_for(left, counts_at, wanted, ranking, self.round_to, self.min_channels)
        reached = left(counts)
        if target is not None:
            check_reached(f"{kind}:{wanted:g}", wanted, reached, left(counts_at(1.0)))
        return counts, reached


def _in_blocks(
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    ratio: float | Mapping[str, float],
    target: str | None,
    costs: Mapping[str, Cost] | None,
    **how: Any,
) -> PrunePlan:
    """In blocks where the target is met so; narrow nets and small shares need other counts."""
    if target is not None:
        kind, wanted = parse_target(target)
        try:
            plan = select(graph, scores, ratio, round_to=BLOCK, target=target, costs=costs, **how)
        except InputError:
            pass  # the other counts say why, if it is not the blocks
        else:
            counts = {name: len(plan.groups[name]) for name in scores}
            reached = share_left(graph, kind, scores, costs)(counts)
            if abs(reached - wanted) <= CLOSE:
                return plan
    return select(graph, scores, ratio, round_to=1, target=target, costs=costs, **how)


def _known(allocation: Allocation | CostAware | str, numbers: Mapping[str, int]) -> CostAware | str:
    """The allocation, "cost" as its defaults. Raises InputError for an unknown one, and for numbers below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}={value} is out of range; use {name} ≥ 1")
    if not isinstance(allocation, CostAware) and allocation not in get_args(Allocation):
        raise InputError(f"allocation={allocation} is not known; use {', '.join(get_args(Allocation))}")
    return CostAware() if allocation == "cost" else allocation


def _unscored(groups: Sequence[Group], scores: Mapping[str, Tensor]) -> list[str]:
    """Names of the groups without scores; told in the log, since they stay whole."""
    found = [group.name for group in groups if group.name not in scores]
    if found:
        shown = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        log.warning("%d of %d groups have no scores and stay whole: %s", len(found), len(groups), shown)
    return found


def _trusted(allocation: CostAware, comparable: bool) -> CostAware:
    """Scores that mean something within their group alone order its channels; between groups what was measured decides.

    Raises InputError where nothing was.
    """
    if comparable or allocation.trust == 1.0:
        return allocation
    if not allocation.measured:
        raise InputError(
            "allocation=cost compares scores between groups, and these cannot be; measure what single groups are worth "
            "(allocation.sensitivity=8), or use importance=second_order"
        )
    return replace(allocation, trust=1.0)


def lowest_removed(scores: Tensor, channels: int, count: int) -> list[int]:
    """Indices of the `count` highest scores, ascending; ties keep the earlier channel."""
    if count >= channels:
        return list(range(channels))
    order = torch.sort(scores.detach().double().cpu(), descending=True, stable=True).indices[:count]
    return sorted(order.tolist())


def _check(graph: CouplingGraph, scores: Mapping[str, Tensor]) -> None:
    groups = {g.name: g for g in graph.groups}
    for name, score in scores.items():
        if name not in groups:
            why = wrapper_of(name, groups) or "which the graph does not have; use graph.groups' names"
            raise InputError(f"scores name the group {name!r}, {why}")
        if tuple(score.shape) != (groups[name].channels,):
            raise InputError(f"scores of {name} have shape {tuple(score.shape)}; give [{groups[name].channels}]")
        if torch.isnan(score).any():
            raise InputError(f"scores of {name} contain NaN; check the calibration images and the weights")


def _ratios(groups: Sequence[Group], ratio: float | Mapping[str, float]) -> dict[str, float]:
    patterns = ratio if isinstance(ratio, Mapping) else {"*": float(ratio)}
    for pattern, value in patterns.items():
        if not 0 <= value < 1:
            raise InputError(f"ratio={value} is out of range; use 0 ≤ ratio < 1 (the share of channels to remove)")
        _matched(groups, [pattern])
    return {g.name: next((v for p, v in reversed(list(patterns.items())) if _matches(g, p)), 0.0) for g in groups}


def _matches(group: Group, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (group.name, *group.layers))


def _matched(groups: Sequence[Group], patterns: Sequence[str]) -> set[str]:
    """Names of the groups that match any pattern; every pattern must match something."""
    found: set[str] = set()
    for pattern in patterns:
        names = {g.name for g in groups if _matches(g, pattern)}
        if groups and not names:
            raise InputError(
                f"the pattern {pattern!r} matches no prunable layer or group; see graph.explain() for names"
            )
        found |= names
    return found
