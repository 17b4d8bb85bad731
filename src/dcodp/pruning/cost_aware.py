"""Cost-aware allocation: what loses least for what it saves goes first, a block of one group's channels at a time.

The saving of a block is re-counted after every removal, since a layer that lost inputs saves less when it loses
filters. What it loses is told by the channels' scores, which must be comparable between groups, and, where that was
measured, by what the net's outputs lose when this group alone is pruned and repaired: dE^trust · dS^(1 − trust).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.pruning.allocation import Counts
from dcodp.pruning.costs import Cost, cost_of

log = logging.getLogger(__name__)
HALVINGS = 3  # of the floor, at most
Measured = Mapping[str, Sequence[tuple[float, float]]]  # group → (share removed, what the outputs lose), ascending
LEAST = 1e-6  # what a block loses at the least, in the unit of what was measured: noise tells no more


@dataclass(frozen=True)
class CostAware:
    """`floor`: the share of each group that stays, halved as often as the budget asks for it. `blocks`: a group goes in
    so many steps. `measured`: what pruning single groups did to the outputs, and how much that counts beside the scores
    (`trust`: 0 not at all, 1 alone)."""

    floor: float = 0.25  # fine-tuned nets keep more with it than with 0.1: results/bccd_allocation
    blocks: int = 16
    measured: Measured = field(default_factory=dict)
    trust: float = 0.5


def cost_aware_counts(
    chosen: CostAware,
    graph: CouplingGraph,
    free: Sequence[Group],
    scores: Mapping[str, Tensor],
    kind: str,
    share: float,
    round_to: int = 1,
    min_channels: int = 1,
    measured: Mapping[str, Cost] | None = None,
) -> Counts:
    """Channels that stay of the groups `free` such that `share` of the dense net's FLOPs or parameters is left, or of
    what a `measured` cost of that kind says.

    Logs a warning where the floor had to be lowered. Raises InputError where an eighth of it is too much still.
    """
    cost = cost_of(graph, kind, measured)
    kept = np.array([group.channels for group in graph.groups], float)
    dense = cost(kept[None])[0]
    names = {group.name for group in free}
    for halvings in range(HALVINGS + 1):
        lowered = replace(chosen, floor=chosen.floor / 2**halvings)
        piles = {
            number: _Pile(group, scores[group.name], lowered, round_to, min_channels)
            for number, group in enumerate(graph.groups)
            if group.name in names
        }
        smallest = np.array([piles[n].least if n in piles else channels for n, channels in enumerate(kept)], float)
        if cost(smallest[None])[0] <= share * dense:
            break
    if lowered.floor < chosen.floor:
        log.warning("%s:%g takes more than floor=%g allows: it is %g now", kind, share, chosen.floor, lowered.floor)
    for fine in (False, True):  # blocks as long as they fit, then single steps
        while cost(kept[None])[0] > share * dense:
            steps = np.zeros(len(kept))
            for number, pile in piles.items():
                steps[number] = pile.step(int(kept[number]), fine)
            left = cost.without(kept, steps)
            saved = cost(kept[None])[0] - left
            able = [n for n in piles if steps[n] > 0 and saved[n] > 0 and (fine or left[n] >= share * dense)]
            if not able:
                break
            best = min(able, key=lambda n: piles[n].loss(int(kept[n]), int(steps[n])) - np.log(saved[n]))
            kept[best] -= steps[best]
    reached = cost(kept[None])[0] / dense
    if reached > share * (1 + 1e-9):
        raise InputError(
            f"target={kind}:{share:g} cannot be met: with {lowered.floor:g} of each group the smallest net keeps "
            f"{reached:.3f}; ask for that share or more, or (run.py) for a smaller allocation.floor"
        )
    return {graph.groups[number].name: int(kept[number]) for number in piles}


class _Pile:
    """The channels of one group, lowest score on top."""

    def __init__(self, group: Group, scores: Tensor, chosen: CostAware, round_to: int, min_channels: int):
        self.scored = np.concatenate([[0.0], np.cumsum(np.sort(scores.detach().double().cpu().numpy()))])
        points = [(0.0, 0.0), *chosen.measured.get(group.name, ())]
        shares, measured = (np.array(column) for column in zip(*points, strict=True))
        self.points = np.round(shares * group.channels).astype(int)  # channels gone where it was measured
        self.measured = np.maximum.accumulate(measured)
        self.trust = chosen.trust if len(points) > 1 else 0.0
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
        """The logarithm of what the next `step` channels lose."""
        gone = self.channels - kept
        scored = max(self.scored[gone + step] - self.scored[gone], np.finfo(float).tiny)
        measured = max(self._measured(gone + step) - self._measured(gone), LEAST)
        return float(self.trust * np.log(measured) + (1 - self.trust) * np.log(scored))

    def _measured(self, gone: int) -> float:
        """Between what was measured as the scores grow: the first channels of a stretch lose least of it. Beyond the
        last point four times as steep as up to it."""
        if gone >= self.points[-1]:
            return float(self.measured[-1] * (1 + 4 * (gone - self.points[-1]) / max(self.points[-1], 1)))
        after = int(np.searchsorted(self.points, gone, side="right"))
        low, high = self.points[after - 1], self.points[after]
        grown, whole = self.scored[gone] - self.scored[low], self.scored[high] - self.scored[low]
        way = grown / whole if whole > 0 else (gone - low) / (high - low)
        return float(self.measured[after - 1] + (self.measured[after] - self.measured[after - 1]) * way)
