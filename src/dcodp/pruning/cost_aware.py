"""Cost-aware allocation: what loses least for what it saves goes first, a block of one group's channels at a time.

The saving of a block is re-counted after every removal, since a layer that lost inputs saves less when it loses
filters. Losses are the sums of the channels' scores, which therefore must be comparable between groups, or be put on
one scale by what was measured (`scales`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.pruning.allocation import Counts
from dcodp.pruning.costs import COSTS


@dataclass(frozen=True)
class CostAware:
    """`floor`: the share of each group that stays. `blocks`: a group goes in so many steps. `scales`: group → by what
    its scores are multiplied; a group that is not named stays as it is scored."""

    floor: float = 0.25
    blocks: int = 16
    scales: Mapping[str, float] = field(default_factory=dict)


def cost_aware_counts(
    chosen: CostAware,
    graph: CouplingGraph,
    free: Sequence[Group],
    scores: Mapping[str, Tensor],
    kind: str,
    share: float,
    round_to: int = 1,
    min_channels: int = 1,
) -> Counts:
    """Channels that stay of the groups `free` such that `share` of the dense net's FLOPs or parameters is left.

    Raises InputError where that takes more than the floors allow.
    """
    cost = COSTS[kind](graph)
    numbers = {group.name: number for number, group in enumerate(graph.groups)}
    kept = np.array([group.channels for group in graph.groups], float)
    wanted = share * cost(kept[None])[0]
    piles = {
        numbers[g.name]: _Pile(g, scores[g.name], chosen, round_to, min_channels) for g in free if g.name in numbers
    }
    for fine in (False, True):  # blocks as long as they fit, then single steps
        while True:
            steps = np.zeros(len(kept))
            for number, pile in piles.items():
                steps[number] = pile.step(int(kept[number]), fine)
            left = cost.without(kept, steps)
            saved = cost(kept[None])[0] - left
            able = (steps > 0) & (saved > 0) & ((left >= wanted) | fine)
            if cost(kept[None])[0] <= wanted or not able.any():
                break
            loss = np.zeros(len(kept))
            for number, pile in piles.items():
                loss[number] = pile.loss(int(kept[number]), int(steps[number]))
            number = int(np.where(able, loss / np.where(able, saved, 1.0), np.inf).argmin())
            kept[number] -= steps[number]
    if cost(kept[None])[0] > wanted * (1 + 1e-9):
        raise InputError(
            f"target={kind}:{share:g} cannot be met: with {chosen.floor:g} of each group the smallest net keeps "
            f"{cost(kept[None])[0] / (wanted / share):.3f}; lower allocation.floor, or choose another share"
        )
    return {group.name: int(kept[numbers[group.name]]) for group in free}


class _Pile:
    """The channels of one group, lowest score on top."""

    def __init__(self, group: Group, scores: Tensor, chosen: CostAware, round_to: int, min_channels: int):
        values = np.sort(scores.detach().double().cpu().numpy()) * chosen.scales.get(group.name, 1.0)
        self.lost = np.concatenate([[0.0], np.cumsum(values)])  # when so many are gone
        self.channels, self.round_to = group.channels, round_to
        least = max(chosen.floor * group.channels, min_channels, 1)
        self.least = min(group.channels, -(-int(np.ceil(least)) // round_to) * round_to)
        self.block = max(round_to, group.channels // chosen.blocks // round_to * round_to)

    def step(self, kept: int, fine: bool) -> int:
        """How many go next: a block, or a single step; to a multiple of round_to, and not below the least."""
        wanted = kept - (self.round_to if fine else self.block)
        wanted = max(wanted // self.round_to * self.round_to, self.least)
        return max(0, kept - wanted)

    def loss(self, kept: int, step: int) -> float:
        gone = self.channels - kept
        return float(self.lost[gone + step] - self.lost[gone])
