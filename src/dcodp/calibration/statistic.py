"""What a statistic is: what it wants to see of a net, the running sums it keeps, what it says of a coupling group.

A statistic is a value: two of the same kind and settings are the same one, gathered once and asked for by all. It
keeps running sums only, float64 tensors whose number and size do not depend on the images.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from dcodp.graph import CouplingGraph, Group, Site

if TYPE_CHECKING:
    from dcodp.calibration.watch import Read

Role = Literal["out", "in"]
# What is differentiated: the loss, its part about boxes, or half the squared norm of the loss's gradient.
Quantity = Literal["total", "boxes", "flow"]


@dataclass(frozen=True, eq=False)
class Subject:
    """The net that is looked at, and what all statistics of a pass share."""

    network: nn.Module
    graph: CouplingGraph
    seed: int = 0
    locations: int = 10  # sampled output positions per image and consumer

    def sites(self, role: str) -> dict[str, list[tuple[Group, Site]]]:
        """Weight name → the groups that its dimension of this role carries."""
        return self._sites.get(role, {})

    @cached_property
    def _sites(self) -> dict[str, dict[str, list[tuple[Group, Site]]]]:
        found: dict[str, dict[str, list[tuple[Group, Site]]]] = defaultdict(lambda: defaultdict(list))
        for group in self.graph.groups:
            for site in group.sites:
                found[site.role][site.tensor].append((group, site))
        return {role: dict(weights) for role, weights in found.items()}

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    @cached_property
    def scales(self) -> dict[str, nn.Parameter]:
        return batchnorm_scales(self.network)


def batchnorm_scales(network: nn.Module) -> dict[str, nn.Parameter]:
    """State-dict name → γ [C] of all batch norms that have one, FrozenBatchNorm2d aside."""
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine}
    return {f"{name}.weight".removeprefix("."): norm.weight for name, norm in norms.items()}


class Sums(dict[str, Tensor]):
    """Running sums by name."""

    def add(self, key: str, value: Tensor) -> None:
        before = self.get(key)
        self[key] = value if before is None else before.to(value.device) + value


@dataclass(frozen=True, eq=False)
class Part:
    """What a statistic says of one layer's share of a group.

    `values` are what a criterion is given. Its scores are of the group's channels, or with an `index` [channels, m] of
    the layer's coordinates, m of which a channel fills.
    """

    layer: str  # the weight, or whatever tells the parts of a group apart
    values: tuple[Any, ...]
    index: Tensor | None = field(default=None)


@dataclass(frozen=True)
class Statistic:
    """Nothing is wanted: the base of all. `role`: of the layers that write a group's channels, or that read them."""

    role: Role = "out"
    sees: ClassVar[str] = "nothing"  # nothing | weights | maps | consumer inputs | gradients

    @property
    def name(self) -> str:
        """By which its sums are stored; made of its settings."""
        settings = (getattr(self, f.name) for f in dataclasses.fields(self))
        return " ".join([type(self).__name__, *(_spelled(value) for value in settings)])

    def of_consumers(self) -> Self:
        """The same of the layers that read the channels, where that is something else."""
        return self

    def produced(self, subject: Subject) -> Iterable[str]:
        """The weights of the layers whose maps it wants to see."""
        return ()

    def read(self, subject: Subject) -> Iterable[str]:
        """The weights of the layers whose inputs it wants to see."""
        return ()

    def differentiated(self, subject: Subject) -> Iterable[str]:
        """The weights in which it wants a gradient."""
        return ()

    def quantity(self) -> Quantity:
        """Of what it wants the gradient."""
        return "total"

    def on_map(self, sums: Sums, subject: Subject, name: str, maps: Tensor) -> None:
        """maps [B, C, H, W] of the layer whose weight is `name`."""

    def on_read(self, sums: Sums, subject: Subject, read: Read) -> None:
        """A layer reads its input."""

    def on_gradient(self, sums: Sums, subject: Subject, name: str, weight: Tensor, grad: Tensor) -> None:
        """The gradient of its `quantity` in one weight."""

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        """What is known of a group; nothing where the statistic says nothing about it."""
        raise NotImplementedError


@dataclass(frozen=True)
class OfLayers(Statistic):
    """The base of those that look at the layers that write the channels, or else at those that read them."""

    def of_consumers(self) -> Self:
        return dataclasses.replace(self, role="in")


def _spelled(value: Any) -> str:
    """A setting in words: functions by where they are defined."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)


def reading(group: Group, weight: str) -> str:
    """The key for what a consumer, named by its weight, reads from a group."""
    return f"{group.name} → {weight}"


def index_of(site: Site) -> Tensor:
    """[channels, m] int64"""
    return torch.from_numpy(np.ascontiguousarray(site.index))


def rows(tensor: Tensor, dim: int) -> Tensor:
    """One row per coordinate of a dimension: [..., C, ...] → [C, the rest]."""
    return tensor.movedim(dim, 0).flatten(1)


def group_maps(maps: Tensor, site: Site) -> Tensor:
    """maps [B, C, H, W] → [B, channels, m · H, W]: a channel that fills several coordinates is one larger map."""
    return maps[:, index_of(site).to(maps.device)].flatten(2, 3)


def seed_of(*parts: object) -> int:
    """A seed from numbers and names, the same on every machine."""
    return zlib.crc32(" ".join(map(str, parts)).encode())


def with_count(scores: Tensor) -> Tensor:
    """[B, C] → [C + 1]: the sum, and in a last entry the number of images."""
    scores = scores.double()
    return torch.cat([scores.sum(0), scores.new_tensor([float(len(scores))])])


def mean_of(entry: Tensor) -> Tensor:
    """[C + 1] of `with_count` → the mean [C]."""
    return entry[:-1] / entry[-1]
