"""Label rules of picking and writing by index: what is picked by number is fixed, the rest is carried."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dcodp.graph.labels import (
    Axes,
    is_zero,
    labels_of,
    operation,
    result,
)
from dcodp.graph.recording import Recorder
from dcodp.graph.rules.movement import carry


def pick(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """select, unbind, index_select, roll, gather: channels along the worked dimension are picked by number."""
    x = args[0]
    names = [a.name for a in func._schema.arguments]
    key = "dims" if "dims" in names else "dim"
    position = names.index(key)
    dim = kwargs.get(key, args[position] if position < len(args) else func._schema.arguments[position].default_value)
    fixed = [int(d) % x.dim() for d in (dim if isinstance(dim, list | tuple) else [dim])] if x.dim() else []
    recorder.fix_dims(x, fixed or range(x.dim()), f"{operation(func)} picks channels by number")
    carry(
        recorder, func, args, kwargs, out, [d for d, a in enumerate(labels_of(x)) if a is not None and d not in fixed]
    )


def gather(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, dim, index = args[:3]
    axes: Axes = []
    for d, labels in enumerate(labels_of(x)):
        if d == dim % x.dim() or labels is None or index.size(d) != x.size(d) or index.stride(d) != 0:
            recorder.fix(labels, "gathered by an index")
            labels = None
        axes.append(labels)
    result(out, axes)


def index(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """x[i, :, j]: dimensions indexed by tensors are fixed, the others are carried."""
    x, indices = args[:2]
    indexed, dim = [], 0
    for i in indices:
        span = 1 if i is None else (i.dim() if i.dtype in (torch.bool, torch.uint8) else 1)
        indexed += [] if i is None else range(dim, dim + span)
        dim += span
    recorder.fix_dims(x, indexed, "indexed by a tensor")
    recorder.fix_all(indices, "used as an index")
    carried = [d for d, a in enumerate(labels_of(x)) if a is not None and d not in indexed]
    if out.numel() == 0:
        recorder.fix_dims(x, carried, "indexed to nothing in the example")
        carried = []
    carry(recorder, func, args, kwargs, out, carried)


def index_put(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """x[i] = values: dimensions up to the last indexed one are fixed; behind it, values and x run in step."""
    x, indices, values = args[:3]
    behind = x.dim() - len(indices)
    recorder.fix_dims(x, range(x.dim() - behind), "written through an index")
    recorder.fix_dims(values, range(max(values.dim() - behind, 0)), "written through an index")
    recorder.fix_all(indices, "used as an index")
    axes: Axes = [None] * (x.dim() - behind)
    for back in range(-behind, 0):
        written = labels_of(values)[back] if values.dim() >= -back else None
        if values.dim() < -back or values.size(back) != x.size(back):
            recorder.fix(labels_of(x)[back], "written over with one value")
        else:
            recorder.meet(labels_of(x)[back], written)
        axes.append(labels_of(x)[back])
    result(out, axes, is_zero(x) and is_zero(values))


def embedding(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    recorder.fix(labels_of(args[0])[0], "rows of an embedding")
    recorder.fix_all(args[1], "used as an index")
    result(out, [*[None] * (out.dim() - 1), labels_of(args[0])[1]], True)
