"""What a criterion is: the statistics it requires, and one pure function from what they say to a score per channel.

The lowest scores go first. `score` is called once for each layer of a group (each `Part` of the statistics), with what
all the required statistics say of it, and the layers' scores are joined as `importance.aggregate` says:

sum, mean, max   over the coordinates of the channel in all layers that produce it (sum: the paper's way)
consumer         the criterion applied to what the consumers read (for weights: the slices that read the channel),
                 averaged over consumers

`scale` says with what a score can be compared, which decides what a global ranking does with it:

layer   with the scores of the same group only: groups are put on one scale first
net     with those of all groups, as they are
order   the score is a position in an order of removal, so that there is nothing to compare between groups
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dcodp.calibration import Statistic
from dcodp.errors import InputError

Aggregate = Literal["sum", "mean", "max", "consumer"]
Scale = Literal["layer", "net", "order"]
AGGREGATES: tuple[Aggregate, ...] = ("sum", "mean", "max", "consumer")


def as_it_is(score: Tensor) -> Tensor:
    """For statistics that are scores already."""
    return score


@dataclass(frozen=True)
class Criterion:
    """`requires`: the statistics whose values `score` is given, in this order. `aggregates`: the ways of joining layers
    that mean something to it. `repair`: what its authors do to the pruned net (a name of `dcodp.repairs`).
    `trained_with`: the setting of the dense net's training (a key of `train`) without which its scores say little."""

    requires: tuple[Statistic, ...]
    score: Callable[..., Tensor] = as_it_is
    scale: Scale = "layer"
    aggregates: tuple[Aggregate, ...] = AGGREGATES
    repair: str = "none"
    trained_with: str | None = None

    def required(self, aggregate: str = "sum") -> tuple[Statistic, ...]:
        """The statistics it asks for where layers are joined by `aggregate`."""
        return tuple(s.of_consumers() for s in self.requires) if aggregate == "consumer" else self.requires

    @property
    def sees(self) -> str:
        """What it looks at: nothing, weights, maps, consumer inputs or gradients."""
        return self.requires[-1].sees


def check(name: str, criterion: Criterion, aggregate: str = "sum", ranked: bool = False) -> None:
    """Raises InputError where `aggregate`, or a ranking over all groups, means nothing to this criterion."""
    if aggregate not in criterion.aggregates:
        problem = "means nothing to " + name if aggregate in AGGREGATES else "is not known"
        raise InputError(f"importance.aggregate={aggregate} {problem}; use one of {', '.join(criterion.aggregates)}")
    if ranked and criterion.scale == "order":
        raise InputError(
            f"allocation=global means nothing to {name}, which only orders a group's channels; use allocation=uniform"
        )
    if ranked and criterion.scale == "net" and aggregate == "sum" and "mean" in criterion.aggregates:
        raise InputError(
            f"allocation=global compares the scores of {name} as they are, and importance.aggregate=sum adds up more "
            "in groups of more layers; use importance.aggregate=mean or max"
        )


def position_of_removal(order: Tensor) -> Tensor:
    """An order in which channels go, [C] int64, as scores [C] float64: 0 for the first, C − 1 for the last."""
    scores = torch.empty(len(order), dtype=torch.float64, device=order.device)
    scores[order] = torch.arange(len(order), dtype=torch.float64, device=order.device)
    return scores
