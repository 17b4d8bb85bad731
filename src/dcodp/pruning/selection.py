"""From scores to a plan: which channels of every coupling group are removed."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.graph.cost import stays
from dcodp.pruning.allocation import CLOSE, Counts, Ranking, check_reached, counts_for, local_counts, share_left
from dcodp.pruning.allocation import kept_count as kept_count
from dcodp.pruning.cost_aware import CostAware, cost_aware_counts
from dcodp.pruning.costs import Cost
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
    for name, value in {"round_to": round_to, "min_channels": min_channels}.items():
        if value < 1:
            raise InputError(f"{name}={value} is out of range; use {name} ≥ 1")
    ratios = _ratios(graph.groups, ratio)
    if allocation == "cost":
        allocation = CostAware()
    if not isinstance(allocation, CostAware) and allocation not in get_args(Allocation):
        raise InputError(f"allocation={allocation} is not known; use {', '.join(get_args(Allocation))}")
    if isinstance(ratio, Mapping) and (target is not None or allocation != "uniform"):
        raise InputError("ratios per group are for allocation=uniform without a target; give one number")
    left_alone = _matched(graph.groups, ignore)
    unscored = [g.name for g in graph.groups if g.name not in scores]
    if unscored:
        log.warning(
            "%d of %d groups have no scores and stay whole: %s", len(unscored), len(graph.groups), _few(unscored)
        )
    free = [g for g in graph.groups if g.name in scores and g.name not in left_alone and (interlayer or not g.coupled)]
    name = "cost" if isinstance(allocation, CostAware) else allocation
    settings = {"ratio": dict(ratio) if isinstance(ratio, Mapping) else ratio, "round_to": round_to,
                "min_channels": min_channels, "ignore": list(ignore), "interlayer": interlayer,
                "allocation": name, "target": target, "comparable": comparable}  # fmt: skip
    if unscored:
        settings["unscored"] = unscored
    if target is None and allocation == "uniform":
        counts = local_counts(free, ratios, round_to, min_channels)
    elif isinstance(allocation, CostAware):
        kind, wanted = parse_target(target) if target is not None else ("flops", 0.0)
        if target is None:  # as much as the same ratio in every group would leave
            alike = local_counts(free, ratios, round_to, min_channels)
            wanted = share_left(graph, kind, scores)(alike)
        counts = cost_aware_counts(
            _trusted(allocation, comparable), graph, free, scores, kind, wanted, round_to, min_channels, costs
        )
    else:
        kind, wanted = parse_target(target) if target is not None else ("channels", 1 - float(ratio))  # type: ignore[arg-type]
        counts, settings["kept_share"] = _budgeted(
            graph, free, scores, Ranking(free, scores, comparable), allocation, kind, wanted, round_to, min_channels,
            costs,
        )  # fmt: skip
        if target is not None:
            settings["ratio"] = None
    keep = {g.name: lowest_removed(scores[g.name], g.channels, counts[g.name]) for g in free}
    return make_plan(graph, keep, settings)


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


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


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


def _budgeted(
    graph: CouplingGraph,
    free: Sequence[Group],
    scores: Mapping[str, Tensor],
    ranking: Ranking,
    allocation: str,
    kind: str,
    wanted: float,
    round_to: int,
    min_channels: int,
    costs: Mapping[str, Cost] | None = None,
) -> tuple[Counts, float]:
    """Counts that leave `wanted` of the net's FLOPs, parameters or free channels, and the share that they leave."""
    left = share_left(graph, kind, scores, costs)

    def counts_at(ratio: float) -> Counts:
        if allocation == "global":
            return ranking.counts(ratio, round_to, min_channels)
        return local_counts(free, {g.name: ratio for g in free}, round_to, min_channels)

    counts = counts_for(left, counts_at, wanted, ranking, round_to, min_channels)
    reached = left(counts)
    if kind != "channels":
        check_reached(f"{kind}:{wanted:g}", wanted, reached, left(counts_at(1.0)))
    return counts, reached


def lowest_removed(scores: Tensor, channels: int, count: int) -> list[int]:
    """Indices of the `count` highest scores, ascending; ties keep the earlier channel."""
    if count >= channels:
        return list(range(channels))
    order = torch.sort(scores.detach().double().cpu(), descending=True, stable=True).indices[:count]
    return sorted(order.tolist())


def make_plan(
    graph: CouplingGraph, keep: Mapping[str, Sequence[int]], settings: Mapping[str, Any] | None = None
) -> PrunePlan:
    """The plan that keeps the given channels of every group (all channels of groups that are not named)."""
    kept = {g.name: list(map(int, keep.get(g.name, range(g.channels)))) for g in graph.groups}
    removed = _removed_coordinates(graph, kept)
    tensors: dict[str, dict[int, list[int]]] = {}
    for (name, dim), coordinates in removed.items():
        left = np.setdiff1d(np.arange(graph.shapes[name][dim]), coordinates).tolist()
        for alias in (name, *graph.aliases.get(name, ())):
            tensors.setdefault(alias, {})[dim] = left
    first_name = {alias: name for name, others in graph.aliases.items() for alias in others}
    return PrunePlan(
        keep=tensors,
        shapes={name: list(graph.shapes[first_name.get(name, name)]) for name in tensors},
        attributes=_attribute_values(graph, kept),
        groups=kept,
        channels={g.name: g.channels for g in graph.groups},
        settings=dict(settings or {}),
    )


def _removed_coordinates(graph: CouplingGraph, kept: Mapping[str, list[int]]) -> dict[tuple[str, int], np.ndarray]:
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for group in graph.groups:
        gone = np.setdiff1d(np.arange(group.channels), kept[group.name])
        for site in group.sites if len(gone) else ():
            parts.setdefault((site.tensor, site.dim), []).append(site.index[gone].ravel())
    return {key: np.concatenate(value) for key, value in parts.items()}


def _attribute_values(graph: CouplingGraph, kept: Mapping[str, list[int]]) -> dict[str, dict[str, Any]]:
    """New values of the attributes that follow the kept channels."""
    mask = stays(graph, kept)
    values: dict[str, dict[str, Any]] = {}
    for size in graph.attributes:
        if mask[size.count.channel].all():
            continue
        module, attribute, position = size.key
        value = size.count.left(mask) // size.divisor
        if position is None:
            values.setdefault(module, {})[attribute] = value
        else:
            entries = values.setdefault(module, {}).setdefault(attribute, [None] * graph.lengths[module, attribute])
            entries[position] = value
    return values


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
