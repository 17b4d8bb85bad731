"""The criteria by name: what each needs, and how it turns that into one score per filter of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.importance import weights
from dcodp.importance.nuclear import nuclear_coupling
from dcodp.importance.rank import average_rank, rank_coupling


@dataclass(frozen=True)
class MapCriterion:
    """Scores from feature maps, averaged over images: `per_image` maps [B, C, H, W] → [B, C]."""

    per_image: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class WeightCriterion:
    """Scores from a layer's filters: weight [C, fan-in] → [C]; the generator is for criteria that draw."""

    score: Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class ScaleCriterion:
    """Scores from batch-norm scales [C] → [C]; a group without batch norm has no score and is left unpruned."""

    score: Callable[[Tensor], Tensor]


Criterion = MapCriterion | WeightCriterion | ScaleCriterion

CRITERIA: dict[str, Criterion] = {
    "dcodp": MapCriterion(nuclear_coupling),  # Eq. 10, on coupling groups
    "chip": MapCriterion(nuclear_coupling),  # the same score; its authors prune layer by layer (interlayer=false)
    "rank": MapCriterion(rank_coupling),  # Eq. 7
    "hrank": MapCriterion(lambda maps: torch.stack([average_rank(image[None]) for image in maps])),
    "l1": WeightCriterion(lambda weight, _: weights.l1(weight)),
    "l2": WeightCriterion(lambda weight, _: weights.l2(weight)),
    "fpgm": WeightCriterion(lambda weight, _: weights.fpgm(weight)),
    "lamp": WeightCriterion(lambda weight, _: weights.lamp(weight)),
    "slimming": ScaleCriterion(weights.batchnorm_scale),
    "random": WeightCriterion(lambda weight, generator: weights.random(len(weight), generator)),
}


def criterion(name: str) -> Criterion:
    """Raises InputError for a name that is not known."""
    if name not in CRITERIA:
        raise InputError(f"importance={name} is not known; use one of {', '.join(CRITERIA)}")
    return CRITERIA[name]


def filters(layer: nn.Module) -> Tensor:
    """A layer's weight with its filters first: [C_out, fan-in], float32, on the CPU."""
    weight = layer.weight.detach().float().cpu()  # type: ignore[union-attr]
    groups = getattr(layer, "groups", 1)
    if getattr(layer, "transposed", False):  # [C_in, C_out / groups, …] → [C_out, …]
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)
