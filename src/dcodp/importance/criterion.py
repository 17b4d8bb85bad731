"""What a criterion is: a pure function from some statistics to one score per channel, and what it needs for them.

The kind of a criterion says what is handed to it; `needs` names where that comes from. The lowest scores go first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightCriterion:
    """Scores from a layer's weight, a filter per row: [C, fan-in], generator (for criteria that draw) → [C]."""

    score: Callable[[Tensor, torch.Generator], Tensor]
    needs: ClassVar[str] = "weights"


@dataclass(frozen=True)
class ScaleCriterion:
    """Scores from a batch norm's scales: [C] → [C]. A group without batch norm has no score and is left unpruned."""

    score: Callable[[Tensor], Tensor]
    needs: ClassVar[str] = "weights"


@dataclass(frozen=True)
class MapCriterion:
    """Scores from a layer's feature maps after the activation, averaged over images: [B, C, H, W] → [B, C]."""

    per_image: Callable[[Tensor], Tensor]
    needs: ClassVar[str] = "maps"


@dataclass(frozen=True)
class GramCriterion:
    """Scores from the inner products of a group's maps: A Aᵀ [C, C] float64 → [C].

    Row c of A holds channel c's maps in all layers of the group, all images side by side.
    """

    score: Callable[[Tensor], Tensor]
    needs: ClassVar[str] = "maps"


@dataclass(frozen=True)
class ContributionCriterion:
    """Scores from what a group's channels contribute to their consumers' outputs: G = Xᵀ X [C, C] float64 → [C].

    X as in thinet.py. A group that no convolution or linear layer reads has no score and is left unpruned.
    """

    score: Callable[[Tensor], Tensor]
    needs: ClassVar[str] = "consumer inputs"


@dataclass(frozen=True)
class GradientCriterion:
    """Scores from a layer's weight and the loss's gradient, averaged over batches: [C, fan-in] twice → [C]."""

    score: Callable[[Tensor, Tensor], Tensor]
    needs: ClassVar[str] = "gradients"


Criterion = WeightCriterion | ScaleCriterion | MapCriterion | GramCriterion | ContributionCriterion | GradientCriterion


def position_of_removal(order: Tensor) -> Tensor:
    """An order in which channels go, [C] int64, as scores [C] float64: 0 for the first, C − 1 for the last."""
    scores = torch.empty(len(order), dtype=torch.float64, device=order.device)
    scores[order] = torch.arange(len(order), dtype=torch.float64, device=order.device)
    return scores
