"""Label rules of data movement: the operation runs again on the labels, and what comes out says who went where."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcodp.graph.labels import (
    Axes,
    is_zero,
    labels_of,
    operation,
    result,
    spread,
    tensors_in,
    varying_dims,
)
from dcodp.graph.recording import Recorder

CUTS = {f"aten::{n}" for n in ("slice", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")}


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
    if not recorder.sizes_seen and func._schema.name in CUTS:
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
    given = moved.flatten().numpy()
    for other in dims:
        if other != dim:
            moved = _collapse(recorder, moved, other)
    labels = moved[tuple(slice(None) if d == dim else 0 for d in range(moved.dim()))].numpy().copy()
    recorder.note_choice(dims, given, labels)
    if axes[dim] is not None:
        recorder.fix(labels, "two kinds of channels merged into one dimension")
        recorder.fix(axes[dim], "two kinds of channels merged into one dimension")
    axes[dim] = labels


def _collapse(recorder: Recorder, moved: Tensor, dim: int) -> Tensor:
    """Tie all positions along `dim`, positionwise: equal pieces lose the same channels."""
    first = moved.narrow(dim, 0, 1)
    recorder.tie(first.expand_as(moved).flatten().numpy(), moved.flatten().numpy())
    return first


def strided(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """as_strided where it only rewrites strides that mean nothing (memory formats); else places cannot be told."""
    x, size, stride = args[:3]
    offset = args[3] if len(args) > 3 else kwargs.get("storage_offset")
    before = recorder.strides_before or x.stride()
    same_places = list(size) == list(x.shape) and offset in (None, x.storage_offset())
    if same_places and all(n <= 1 or a == b for n, a, b in zip(size, stride, before, strict=True)):
        result(out, labels_of(x), is_zero(x))
        return
    recorder.fix_dims(x, range(x.dim()), "as_strided addresses memory by number")
    result(out, [None] * out.dim())


def as_complex(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x = args[0]
    recorder.fix(labels_of(x)[-1], "real and imaginary parts")
    result(out, labels_of(x)[:-1], is_zero(x))


def as_real(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    result(out, [*labels_of(args[0]), None], is_zero(args[0]))


def patches(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """im2col: [N, C, H, W] → [N, C·k², L]: each channel becomes as many as there are kernel positions."""
    x = args[0]
    axes = labels_of(x)
    recorder.fix_dims(x, (-2, -1), "positions")
    channel = None if axes[-3] is None else np.repeat(axes[-3], out.size(-2) // x.size(-3))
    result(out, [*axes[:-3], channel, None], is_zero(x))


def from_patches(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """col2im: [N, C·k², L] → [N, C, H, W]: the k² rows of one channel go together."""
    x = args[0]
    axes = labels_of(x)
    recorder.fix(axes[-1], "positions")
    channel = axes[-2]
    if channel is not None:
        blocks = channel.reshape(out.size(-3), -1)
        for column in blocks.T[1:]:
            recorder.tie(blocks[:, 0], column)
        channel = blocks[:, 0]
    result(out, [*axes[:-2], channel, None, None], is_zero(x))
