"""What a net costs with any choice of channels, without running it: parameters and floating-point operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dcodp.graph.groups import Group
from dcodp.graph.labels import Components
from dcodp.graph.linear import Linear, dimension_form

Dimension = tuple[np.ndarray | None, int]  # labels (None: nothing can be removed) and size
Kept = Mapping[str, Sequence[int] | np.ndarray]  # group → kept channels; all channels of groups that are not named


@dataclass(frozen=True, eq=False)
class Count:
    """A number that follows the kept channels: constant + Σ coefficient·kept."""

    constant: int
    channel: np.ndarray  # [n] numbers of channels, counted through all groups in order
    coefficient: np.ndarray  # [n]

    @classmethod
    def of(cls, form: Linear, channel_of: np.ndarray) -> Count:
        """`channel_of[component]` numbers the channels; components outside every group (−1) are always kept."""
        components = np.array(list(form.terms), np.int64)
        coefficient = np.array(list(form.terms.values()), np.int64)
        free = channel_of[components] >= 0
        return cls(form.constant + int(coefficient[~free].sum()), channel_of[components[free]], coefficient[free])

    def left(self, stays: np.ndarray) -> int:
        """The number when the channels in `stays` ([channels of all groups] bool) are kept."""
        return self.constant + int(self.coefficient[stays[self.channel]].sum())


@dataclass(frozen=True, eq=False)
class Contraction:
    """One convolution or matrix product: `factor` × the product of its dimensions floating-point operations."""

    layer: str
    factor: int
    dims: tuple[Count, ...]

    def flops(self, stays: np.ndarray) -> int:
        return self.factor * int(np.prod([float(d.left(stays)) for d in self.dims]))


@dataclass(frozen=True, eq=False)
class Spent:
    """A contraction as it was recorded, with labels."""

    layer: str
    factor: int
    dims: tuple[Dimension, ...]

    def counted(self, components: Components, channel_of: np.ndarray) -> Contraction:
        """The same in terms of kept channels; what cannot shrink goes into the factor."""
        counts = [Count.of(dimension_form(*dim, components), channel_of) for dim in self.dims]
        fixed = int(np.prod([c.constant for c in counts if not len(c.channel)], dtype=np.int64))
        return Contraction(self.layer, self.factor * fixed, tuple(c for c in counts if len(c.channel)))


class Counted(Protocol):
    """What counting needs of a coupling graph."""

    groups: list[Group]
    contractions: list[Contraction]
    shapes: dict[str, tuple[int, ...]]
    parameters: tuple[str, ...]


def stays(graph: Counted, kept: Kept | None = None) -> np.ndarray:
    """[channels of all groups, in order] bool: which are kept."""
    masks = []
    for group in graph.groups:
        mask = np.ones(group.channels, bool)
        if kept is not None and group.name in kept:
            mask[:] = False
            mask[np.asarray(kept[group.name], np.int64)] = True
        masks.append(mask)
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def count_flops(graph: Counted, kept: Kept | None = None) -> int:
    """Floating-point operations of the traced evaluation pass, 2 per multiply-accumulate.

    Convolutions, matrix products and attention count, element-wise operations do not, as is usual in the field.
    """
    mask = stays(graph, kept)
    return sum(contraction.flops(mask) for contraction in graph.contractions)


def count_parameters(graph: Counted, kept: Kept | None = None) -> int:
    """Parameters left (shared ones once, buffers not at all)."""
    shapes = {name: list(graph.shapes[name]) for name in graph.parameters}
    for group in graph.groups:
        gone = group.channels - len(kept[group.name]) if kept is not None and group.name in kept else 0
        for site in group.sites if gone else ():
            if site.tensor in shapes:
                shapes[site.tensor][site.dim] -= gone * site.index.shape[1]
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
