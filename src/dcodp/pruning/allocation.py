"""How many channels of every group stay: one ratio, one threshold over all groups, or a budget of the whole net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.pruning.costs import Cost, cost_of

Counts = dict[str, int]  # group → channels that stay
CLOSE = 0.01  # a target is met within this share of the dense net


def kept_count(channels: int, ratio: float, round_to: int = 1, min_channels: int = 1) -> int:
    """Channels that stay of `channels`: (1 − ratio), to the nearest multiple of `round_to` that leaves at least one."""
    wanted = channels * (1 - ratio)
    count = int(wanted / round_to + 0.5) * round_to if round_to > 1 else channels - int(channels * ratio + 0.5)
    least = -(-min_channels // round_to) * round_to
    return min(channels, max(count, least, round_to))


def local_counts(
    groups: Sequence[Group], ratios: Mapping[str, float], round_to: int = 1, min_channels: int = 1
) -> Counts:
    """The same share of every group, or a share of its own for each."""
    return {g.name: kept_count(g.channels, ratios[g.name], round_to, min_channels) for g in groups}


class Ranking:
    """All channels of all groups in one order, lowest score first.

    Scores of different groups are on different scales. Unless `comparable` says otherwise, each is divided by the root
    mean square of its group's scores (Molchanov et al., arXiv 1611.06440, section 2.2, there without the mean over the
    group's size), so that a group is pruned more where it has channels far below its own average, however large its
    scores are. Where scores are equal, groups take turns, so that each loses the same share of them.
    """

    def __init__(self, groups: Sequence[Group], scores: Mapping[str, Tensor], comparable: bool = False):
        self.groups = groups
        self.values = {g.name: normalised(scores[g.name], comparable) for g in groups}
        every = np.concatenate([self.values[g.name] for g in groups]) if groups else np.zeros(0)
        turns = [_turns(self.values[g.name]) for g in groups]
        ranks = np.empty(len(every), np.int64)
        ranks[np.lexsort((np.concatenate(turns) if groups else every, every))] = np.arange(len(every))
        ends = np.cumsum([g.channels for g in groups])
        self.ranks = dict(zip([g.name for g in groups], np.split(ranks, ends[:-1]), strict=False))
        self.total = len(every)

    def counts(self, ratio: float, round_to: int = 1, min_channels: int = 1) -> Counts:
        """What is left of each group when the lowest `ratio` of all channels go, as far as its least number allows."""
        first = round(ratio * self.total)
        left = {g.name: int((self.ranks[g.name] >= first).sum()) for g in self.groups}
        return {
            g.name: kept_count(g.channels, 1 - left[g.name] / g.channels, round_to, min_channels) for g in self.groups
        }

    def next_lowest(self, group: Group, count: int) -> float:
        """The normalised score of the channel that goes next when `count` are left."""
        return float(np.sort(self.values[group.name])[group.channels - count])


def normalised(scores: Tensor, comparable: bool = False) -> np.ndarray:
    """scores [channels] / √(mean of their squares), float64; as they are where they are comparable already."""
    values = scores.detach().double().cpu().numpy()
    if comparable:
        return values
    finite = values[np.isfinite(values)]
    scale = float(np.sqrt(np.mean(finite**2))) if len(finite) else 0.0
    if scale > 0:
        return values / scale
    return np.where(values == 0, 1.0, values)  # all alike, as any other constant: zeros say no more than ones


def _turns(values: np.ndarray) -> np.ndarray:
    """For each value the share of those equal to it that go before it, the later ones first: [n] → [n] in [0, 1)."""
    _, which, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.lexsort((-np.arange(len(values)), which))
    turns = np.empty(len(values))
    turns[order] = np.arange(len(values)) - (np.cumsum(sizes) - sizes)[which[order]]
    return turns / sizes[which]


def share_left(
    graph: CouplingGraph, kind: str, scores: Mapping[str, Tensor], measured: Mapping[str, Cost] | None = None
) -> Callable[[Counts], float]:
    """The share of the dense net's FLOPs, parameters, removable channels or `measured` cost that given counts leave."""
    if kind not in ("flops", "parameters", "channels"):
        return _measured_share(graph, cost_of(graph, kind, measured))
    order = {name: torch.sort(s.detach().double().cpu(), descending=True, stable=True)[1] for name, s in scores.items()}

    def left(counts: Counts) -> float:
        if kind == "channels":
            return sum(counts.values()) / max(1, sum(g.channels for g in graph.groups if g.name in counts))
        kept = {name: order[name][:count].numpy() for name, count in counts.items()}
        if kind == "flops":
            return graph.flops(kept) / max(1, graph.flops())
        return graph.parameter_count(kept) / max(1, graph.parameter_count())

    return left


def _measured_share(graph: CouplingGraph, cost: Cost) -> Callable[[Counts], float]:
    def cost_at(counts: Counts) -> float:
        return float(cost(np.array([[counts.get(g.name, g.channels) for g in graph.groups]], float))[0])

    dense = cost_at({})
    return lambda counts: cost_at(counts) / dense


def counts_for(
    left: Callable[[Counts], float],
    counts_at: Callable[[float], Counts],
    wanted: float,
    ranking: Ranking,
    round_to: int = 1,
    min_channels: int = 1,
) -> Counts:
    """Counts that leave a share of `wanted`, as nearly as rounding allows.

    `counts_at(ratio)` must not grow with the ratio, which is bisected. Where one more step of the ratio changes many
    groups at once, they step down one by one, those first whose next channel scores lowest. What is still missing is
    made up for by steps of single groups.
    """
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if left(counts_at(middle)) >= wanted else (low, middle)
    more, fewer = counts_at(low), counts_at(high)
    steps = sorted(
        (g for g in ranking.groups if fewer[g.name] != more[g.name]),
        key=lambda g: ranking.next_lowest(g, more[g.name]),
    )
    best = more
    for group in steps:
        more = {**more, group.name: fewer[group.name]}
        if abs(left(more) - wanted) < abs(left(best) - wanted):
            best = more
    least = {g.name: kept_count(g.channels, 1.0, round_to, min_channels) for g in ranking.groups}
    return _nudged(best, least, left, wanted, ranking.groups, round_to)


def _nudged(
    counts: Counts,
    least: Counts,
    left: Callable[[Counts], float],
    wanted: float,
    groups: Sequence[Group],
    round_to: int,
) -> Counts:
    """One step of `round_to` channels at a time in the group where it helps most, until the share is close enough."""
    missing = abs(left(counts) - wanted)
    while missing > CLOSE / 2:
        moves = [
            {**counts, g.name: counts[g.name] + step}
            for g in groups
            for step in (-round_to, round_to)
            if least[g.name] <= counts[g.name] + step <= g.channels and counts[g.name] % round_to == 0
        ]
        nearest = min(moves, key=lambda c: abs(left(c) - wanted), default=counts)
        if abs(left(nearest) - wanted) >= missing:
            break
        counts, missing = nearest, abs(left(nearest) - wanted)
    return counts


def check_reached(target: str, wanted: float, reached: float, smallest: float) -> None:
    """Raises InputError unless the target is met within 1 %."""
    if abs(reached - wanted) > CLOSE:
        raise InputError(
            f"target={target} cannot be met: the nearest choice keeps {reached:.3f}, the smallest net {smallest:.3f}; "
            "lower round_to or min_channels, ignore fewer layers, or choose another share"
        )
