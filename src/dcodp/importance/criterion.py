"""What a criterion is: a pure function from some statistics to one score per channel, and what it needs for them.

The kind of a criterion says what is handed to it; `needs` names where that comes from. The lowest scores go first.

`aggregates` are the ways in which the scores of a group's layers can become the group's (see collector.py); `scale`
says with what a score can be compared, which decides what scope=global does with it:

layer   with the scores of the same group only: groups are put on one scale first
net     with those of all groups, as they are
order   the score is a position in an order of removal, so that there is nothing to compare between groups
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dcodp.errors import InputError

AGGREGATES = ("sum", "mean", "max", "consumer")


@dataclass(frozen=True)
class WeightCriterion:
    """Scores from a layer's weight, a filter per row: [C, fan-in] → [C]."""

    score: Callable[[Tensor], Tensor]
    scale: str = "layer"
    needs: ClassVar[str] = "weights"
    aggregates: ClassVar[tuple[str, ...]] = AGGREGATES


@dataclass(frozen=True)
class DrawnCriterion:
    """Scores drawn for a group without a look at it: its number of channels C, a generator → [C]."""

    score: Callable[[int, torch.Generator], Tensor]
    scale: str = "net"
    needs: ClassVar[str] = "nothing"
    aggregates: ClassVar[tuple[str, ...]] = ("sum",)  # one draw for a group, whatever its layers


@dataclass(frozen=True)
class ScaleCriterion:
    """Scores from a batch norm's scales: [C] → [C]. A group without batch norm has no score and is left unpruned."""

    score: Callable[[Tensor], Tensor]
    scale: str = "layer"
    needs: ClassVar[str] = "weights"
    aggregates: ClassVar[tuple[str, ...]] = ("sum", "mean", "max")  # consumers have no scale of the channel


@dataclass(frozen=True)
class MapCriterion:
    """Scores from a layer's feature maps after the activation, averaged over images: [B, C, H, W] → [B, C].

    The rows of a linear layer come as the positions of one image for each batch, [1, C, N, 1], since it is not known
    which rows belong to which image; its scores therefore depend on the batch size. `planar`: the score needs maps
    with a height and a width, so that linear layers and one-pixel maps have none.
    """

    per_image: Callable[[Tensor], Tensor]
    planar: bool = False
    scale: str = "layer"
    needs: ClassVar[str] = "maps"
    aggregates: ClassVar[tuple[str, ...]] = AGGREGATES


@dataclass(frozen=True)
class GramCriterion:
    """Scores from the inner products of a group's maps: A Aᵀ [C, C] float64 → [C].

    Row c of A holds channel c's maps in all layers of the group, all images side by side.
    """

    score: Callable[[Tensor], Tensor]
    scale: str = "layer"
    needs: ClassVar[str] = "maps"
    aggregates: ClassVar[tuple[str, ...]] = ("sum", "consumer")  # the inner products of all layers, summed


@dataclass(frozen=True)
class ContributionCriterion:
    """Scores from what a group's channels contribute to their consumers' outputs: G = Xᵀ X [C, C] float64 → [C].

    X as in thinet.py. Consumers are linear layers and one- or two-dimensional convolutions; grouped, deformable and
    three-dimensional ones are passed over. A group that none of the former reads has no score and is left unpruned.
    """

    score: Callable[[Tensor], Tensor]
    scale: str = "layer"
    needs: ClassVar[str] = "consumer inputs"
    aggregates: ClassVar[tuple[str, ...]] = ("sum",)  # of what the consumers lose; the producing layers do not count


@dataclass(frozen=True)
class GradientCriterion:
    """Scores from a layer's weight and the loss's gradient, averaged over batches: [C, fan-in] twice → [C]."""

    score: Callable[[Tensor, Tensor], Tensor]
    scale: str = "layer"
    needs: ClassVar[str] = "gradients"
    aggregates: ClassVar[tuple[str, ...]] = AGGREGATES


Criterion = (
    WeightCriterion
    | DrawnCriterion
    | ScaleCriterion
    | MapCriterion
    | GramCriterion
    | ContributionCriterion
    | GradientCriterion
)


def check(name: str, criterion: Criterion, aggregate: str = "sum", scope: str = "local") -> None:
    """Raises InputError where `aggregate` or `scope` means nothing to the criterion of this name."""
    if aggregate not in criterion.aggregates:
        problem = "means nothing to " + name if aggregate in AGGREGATES else "is not known"
        raise InputError(f"importance.aggregate={aggregate} {problem}; use one of {', '.join(criterion.aggregates)}")
    if scope == "global" and criterion.scale == "order":
        raise InputError(f"scope=global means nothing to {name}, which only orders a group's channels; use scope=local")
    if scope == "global" and criterion.scale == "net" and aggregate == "sum" and "mean" in criterion.aggregates:
        raise InputError(
            f"scope=global compares the scores of {name} as they are, and importance.aggregate=sum adds up more in "
            "groups of more layers; use importance.aggregate=mean or max"
        )


def position_of_removal(order: Tensor) -> Tensor:
    """An order in which channels go, [C] int64, as scores [C] float64: 0 for the first, C − 1 for the last."""
    scores = torch.empty(len(order), dtype=torch.float64, device=order.device)
    scores[order] = torch.arange(len(order), dtype=torch.float64, device=order.device)
    return scores
