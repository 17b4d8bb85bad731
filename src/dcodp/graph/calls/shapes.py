"""Shapes that remember: sizes of labelled dimensions as `TracedInt`s."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dcodp.graph.expressions import FromDimension
from dcodp.graph.labels import labels_of
from dcodp.graph.sizes import TracedInt, TracedSize, Uses

SHAPE_GETTER = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a new object at each access: compare with ==


def traced_shape(tensor: Tensor, shape: torch.Size, uses: Uses) -> Any:
    """The shape with labelled dimensions as `TracedInt`s."""
    axes = labels_of(tensor)
    if all(a is None for a in axes):
        return shape
    if uses.plain:
        for labels, size in zip(axes, shape, strict=True):
            if labels is not None:
                uses.fix(FromDimension(labels), size)
        return shape
    return TracedSize(
        size if a is None else TracedInt(size, FromDimension(a), uses) for size, a in zip(shape, axes, strict=True)
    )


def traced_size(tensor: Tensor, args: Any, kwargs: Any, uses: Uses) -> Any:
    """`tensor.size(dim)`."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    shape = traced_shape(tensor, tensor.shape, uses)
    return shape if dim is None else shape[dim]


def sizes_given(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, start: int = 1) -> list[Any]:
    """`f(x, 2, 3)`, `f(x, (2, 3))` and `f(x, size=(2, 3))` alike."""
    rest = args[start:] or (kwargs.get(name, kwargs.get("size", ())),)
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else list(rest)
