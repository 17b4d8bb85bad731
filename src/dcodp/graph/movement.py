"""Label rules of data movement: the operation runs again on the labels, and what comes out says who went where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dcodp.graph.labels import FIXED, Axes, is_zero, labels_of, operation, result, spread, tensors_in, varying_dims

if TYPE_CHECKING:
    from dcodp.graph.recording import Recorder


def same(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Copies and aliases: every coordinate stays where it is."""
    result(out, labels_of(args[0]), is_zero(args[0]))


def view(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """Each run of dimensions that is merged and split among itself is laid out on its own, which keeps it small."""
    x = args[0]
    axes: Axes = [None] * out.dim()
    for inner, outer in _runs(recorder, x, out):
        shape = [out.size(d) if d in outer else 1 for d in range(out.dim())]
        for dim in inner:
            labels = labels_of(x)[dim]
            if labels is not None and not _all_tied(recorder, labels):
                laid = spread(labels, dim - inner.start, torch.Size(x.size(d) for d in inner))
                _read_off(recorder, laid.reshape(shape), axes)
    result(out, axes, is_zero(x))


def _runs(recorder: Recorder, x: Tensor, out: Tensor) -> list[tuple[range, range]]:
    """The shortest runs of dimensions of `x` and of `out` with as many coordinates each, in order."""
    sizes, wanted = [s or 1 for s in x.shape], [s or 1 for s in out.shape]  # nothing to detect gives sizes of 0
    if np.prod(sizes) != np.prod(wanted):
        recorder.fix_dims(x, range(x.dim()), "the view of an empty tensor")
        return []
    runs, i, j = [], 0, 0
    while i < len(sizes) or j < len(wanted):
        start, begin = i, j
        left, right = sizes[i] if i < len(sizes) else 1, wanted[j] if j < len(wanted) else 1
        i, j = min(i + 1, len(sizes)), min(j + 1, len(wanted))
        while left != right:
            if left < right:
                left, i = left * sizes[i], i + 1
            else:
                right, j = right * wanted[j], j + 1
        runs.append((range(start, i), range(begin, j)))
    return runs


def move(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Run the same operation on the labels and read off where each coordinate went."""
    x = args[0]
    if not recorder.sizes_seen and func._schema.name in ("aten::slice", "aten::split", "aten::split_with_sizes"):
        whole = [tensors_in(out)[0].size(d) == x.size(d) for d in range(x.dim())]
        recorder.fix_dims(x, [d for d, kept in enumerate(whole) if not kept], "cut at a size that was not observed")
    carry(recorder, func, args, kwargs, out, [d for d, a in enumerate(labels_of(x)) if a is not None])


def carry(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, dims: list[int]
) -> None:
    x = args[0]
    outputs = tensors_in(out)
    axes: list[Axes] = [[None] * t.dim() for t in outputs]
    if dims and x.numel() == 0:
        recorder.fix_dims(x, dims, f"{operation(func)} of an empty tensor")
        dims = []
    for dim in dims:
        labels = labels_of(x)[dim]
        if labels is None or _all_tied(recorder, labels):
            continue
        moved = tensors_in(func(spread(labels, dim, x.shape), *args[1:], **kwargs))
        for target, where_to in zip(axes, moved, strict=True):
            _read_off(recorder, where_to, target)
    for tensor, target in zip(outputs, axes, strict=True):
        result(tensor, target, is_zero(x))


def _all_tied(recorder: Recorder, labels: np.ndarray) -> bool:
    """Whether repeated shuffling has left one kind of channel, whose place cannot be read off any more."""
    tied = bool((labels == labels[0]).all())
    if tied:
        recorder.fix(labels, "tied to each other: all go or none")
    return tied


def _read_off(recorder: Recorder, moved: Tensor, axes: Axes) -> None:
    """Find the dimension of `moved` (labels after the operation) that now carries the channels."""
    dims = varying_dims(moved)
    if not dims:
        if moved.numel():
            recorder.fix(moved.flatten()[:1].numpy(), "one kind of channel alone is picked out")
        return
    dim = recorder.choose_dim(dims)
    moved = moved[tuple(slice(None) if d in dims else slice(0, 1) for d in range(moved.dim()))]
    for other in dims:
        if other != dim:
            moved = _collapse(recorder, moved, other)
    labels = moved[tuple(slice(None) if d == dim else 0 for d in range(moved.dim()))].numpy().copy()
    if axes[dim] is not None:
        recorder.fix(labels, "two kinds of channels merged into one dimension")
        recorder.fix(axes[dim], "two kinds of channels merged into one dimension")
    axes[dim] = labels


def _collapse(recorder: Recorder, moved: Tensor, dim: int) -> Tensor:
    """Tie all positions along `dim`, positionwise: equal pieces lose the same channels."""
    first = moved.narrow(dim, 0, 1)
    recorder.tie(first.expand_as(moved).flatten().numpy(), moved.flatten().numpy())
    return first


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


def cat(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    tensors = [t for t in args[0] if t.dim() > 1 or t.numel()]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    axes = []
    for d in range(out.dim()):
        parts = [labels_of(t)[d] for t in tensors]
        if d == dim:
            filled = [np.full(t.size(d), FIXED) if a is None else a for t, a in zip(tensors, parts, strict=True)]
            axes.append(np.concatenate(filled) if any(a is not None for a in parts) else None)
        else:
            axes.append(recorder.meet_all(parts))
    result(out, axes, all(is_zero(t) for t in tensors))


def stack(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    tensors: list[Tensor] = list(args[0])
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.dim()
    axes = [recorder.meet_all([labels_of(t)[d] for t in tensors]) for d in range(out.dim() - 1)]
    axes.insert(dim, None)
    result(out, axes, all(is_zero(t) for t in tensors))


def pixel_shuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """[N, C·r², H, W] → [N, C, rH, rW]: the r² channels of one output channel go together."""
    x, factor = args[:2]
    axes = labels_of(x)
    channel = axes[-3]
    if channel is not None:
        blocks = channel.reshape(-1, factor * factor)
        for column in blocks.T[1:]:
            recorder.tie(blocks[:, 0], column)
        channel = blocks[:, 0]
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def pixel_unshuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, factor = args[:2]
    axes = labels_of(x)
    channel = None if axes[-3] is None else np.repeat(axes[-3], factor * factor)
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def gated(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """glu: the halves of a dimension are multiplied, so they lose the same positions."""
    x = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % x.dim()
    axes = list(labels_of(x))
    labels = axes[dim]
    if labels is not None:
        one, other = np.split(labels, 2)
        recorder.tie(one, other)
        axes[dim] = one
    result(out, axes, is_zero(x))


def channel_shuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, groups = args[:2]
    axes = list(labels_of(x))
    if axes[1] is not None:
        rows = np.reshape(axes[1], (groups, -1))
        for row in rows[1:]:
            recorder.tie(rows[0], row)
        axes[1] = rows.T.flatten()
    result(out, axes, is_zero(x))
