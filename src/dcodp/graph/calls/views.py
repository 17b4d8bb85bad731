"""Calls that shape tensors: view, expand, repeat, zeros. Each size that they are given becomes a rule."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcodp.graph.calls.shapes import sizes_given, traced_shape
from dcodp.graph.expressions import FromAttribute, FromDimension, leaves
from dcodp.graph.labels import labels_of, put_labels
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import TracedInt, origin_of, plain

WIDTHS = ("in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels")
VIEWS = (torch.Tensor.view, torch.Tensor.reshape, torch.reshape)
UNFLATTENS = (torch.Tensor.unflatten, torch.unflatten)


def sizes_hinted(func: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """The sizes a view asks for, as the model wrote them: they tell which dimension may shrink."""
    if func in VIEWS:
        sizes = sizes_given(args, kwargs, "shape")
        return sizes if all(isinstance(s, int) for s in sizes) else None
    if func in UNFLATTENS:
        dim = args[1] % args[0].dim()
        return [-1] * dim + list(_unflattened_sizes(args, kwargs)) + [-1] * (args[0].dim() - dim - 1)
    return None


def _unflattened_sizes(args: Any, kwargs: Any) -> Iterable[Any]:
    return list(args[2] if len(args) > 2 else kwargs["sizes"])


def view(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    for dim, size in enumerate(sizes_hinted(torch.Tensor.view, args, kwargs) or []):
        if plain(size) != -1:
            recorder.require(size, labels_of(out)[dim], out.size(dim))


def unflatten(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    start = args[1] % args[0].dim()
    for offset, size in enumerate(_unflattened_sizes(args, kwargs)):
        if plain(size) != -1:
            recorder.require(size, labels_of(out)[start + offset], out.size(start + offset))


def expand(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    sizes = sizes_given(args, kwargs, "size")
    _label_repeated(recorder, sizes, out)
    for dim, size in enumerate(sizes):
        if plain(size) != -1:
            recorder.require(size, labels_of(out)[dim], out.size(dim))


def like_other(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    """view_as, reshape_as, expand_as."""
    sizes = list(traced_shape(args[1], args[1].shape, recorder.uses))
    if args[0].dim() != out.dim() or any(a == 1 != b for a, b in zip(args[0].shape, out.shape, strict=True)):
        _label_repeated(recorder, sizes, out)
    for dim, size in enumerate(sizes):
        recorder.require(size, labels_of(out)[dim], out.size(dim))


def repeat(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    counts = sizes_given(args, kwargs, "repeats")
    filters = _label_filters(recorder, args[0], counts, out)
    single = [out.size(out.dim() - len(counts) + i) == plain(n) for i, n in enumerate(counts)]
    _label_repeated(recorder, [n if one else 1 for n, one in zip(counts, single, strict=True)], out)
    for i, (times, one) in enumerate(zip(counts, single, strict=True)):
        labels = labels_of(out)[out.dim() - len(counts) + i] if one else None
        if _is_channel_count(times) and i not in filters:
            recorder.require(times, labels, plain(times))


def _label_filters(recorder: Recorder, x: Tensor, counts: list[Any], out: Tensor) -> list[int]:
    """A few fixed filters, all of them repeated for each of some channels (wavelets): they go with their channel.

    Returns the positions in `counts` of the numbers of channels.
    """
    axes, found = list(labels_of(out)), []
    for i, times in enumerate(counts):
        dim, own = out.dim() - len(counts) + i, i - (len(counts) - x.dim())
        size = x.size(own) if own >= 0 else 1
        if size > 1 and _is_channel_count(times):
            recorder.fix(labels_of(x)[own], "filters that every channel has")
            channels = recorder.labels.fresh(plain(times))
            axes[dim] = np.repeat(channels, size)
            recorder.require(times, channels, plain(times))
            found.append(i)
    put_labels(out, axes)
    return found


def _is_channel_count(size: Any) -> bool:
    return any(isinstance(x, FromDimension) for x in leaves(origin_of(size)))


def _is_layers_width(size: Any) -> bool:
    """A number of channels that a layer tells; its other numbers (RoI align's 7 × 7 bins) are sizes of maps."""
    return any(isinstance(x, FromAttribute) and x.key[1] in WIDTHS for x in leaves(origin_of(size)))


def _label_repeated(recorder: Recorder, sizes: list[Any], out: Tensor) -> None:
    """One value that is repeated for each of some channels: every copy goes with its channel."""
    axes = list(labels_of(out))
    for back in range(1, min(len(sizes), out.dim()) + 1):
        if axes[-back] is None and _is_channel_count(sizes[-back]) and plain(sizes[-back]) == out.size(-back):
            axes[-back] = recorder.labels.fresh(out.size(-back))
    put_labels(out, axes)


def make(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    """torch.zeros(n, x.shape[1], …): a dimension sized by channels will hold channels."""
    _made(recorder, sizes_given(args, kwargs, "size", start=0)[: out.dim()], out)
    out._dcodp_zero = True  # type: ignore[attr-defined]  # removed channels of a constant are cut off with it


def make_filled(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    """torch.ones, torch.full: the same, but what is removed is not 0."""
    _note_filling(args, kwargs, 1)
    given = args[:1] if args and isinstance(args[0], list | tuple) else args
    _made(recorder, sizes_given(given, kwargs, "size", start=0)[: out.dim()], out)


def make_alike(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    """x.new_zeros, x.new_ones, x.new_full."""
    _note_filling(args, kwargs, 2)
    given = args[:2] if len(args) > 1 and isinstance(args[1], list | tuple) else args
    _made(recorder, sizes_given(given, kwargs, "size")[: out.dim()], out)


def _note_filling(args: Any, kwargs: Any, position: int) -> None:
    """A number of channels that fills a tensor is a value."""
    sized = len(args) > position and isinstance(args[position - 1], list | tuple)
    for value in (args[position] if sized else None, kwargs.get("fill_value")):
        if type(value) is TracedInt:
            value.note_value()


def make_zeros_alike(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    make_alike(recorder, args, kwargs, out)
    out._dcodp_zero = True  # type: ignore[attr-defined]


def _made(recorder: Recorder, sizes: list[Any], out: Tensor) -> None:
    counts = [_is_channel_count(size) or _is_layers_width(size) for size in sizes]
    if any(counts):
        axes = [recorder.labels.fresh(plain(s)) if c else None for s, c in zip(sizes, counts, strict=True)]
        put_labels(out, axes)
        recorder.seen.append(weakref.ref(out))
        for size, labels in zip(sizes, axes, strict=True):
            recorder.require(size, labels, plain(size))
