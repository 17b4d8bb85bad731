"""Calls that cut tensors: split, chunk, narrow, x[:, a:b]. The bounds must follow the channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcodp.graph.labels import labels_of
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import plain


def split(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    size = args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_size"))
    dim = plain(args[2] if len(args) > 2 else kwargs.get("dim", 0))
    sizes = list(size) if isinstance(size, list | tuple) else [size] * len(out)
    for piece, wanted in zip(out, sizes, strict=True):
        if piece.size(dim) == plain(wanted):  # the last piece may be smaller
            recorder.require(wanted, labels_of(piece)[dim], piece.size(dim))
        else:
            recorder.fix(labels_of(piece)[dim], "the rest that a split leaves")
    recorder.suggest_pieces([labels_of(p)[dim] for p in out])


def chunk(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """Equal pieces lose the same channels, since the pruned tensor is again cut into equal pieces."""
    dim = plain(args[2] if len(args) > 2 else kwargs.get("dim", 0))
    sections = args[1] if len(args) > 1 else kwargs.get("chunks", kwargs.get("sections"))
    pieces = [labels_of(p)[dim] for p in out]
    first = pieces[0]
    if first is None or len(out) < 2:
        return
    if not isinstance(sections, int) or any(p is None or len(p) != len(first) for p in pieces):
        for piece in pieces:
            recorder.fix(piece, "cut into unequal chunks")
        return
    recorder.require(sections, None, plain(sections))
    for piece in pieces[1:]:
        recorder.tie(first, piece)  # type: ignore[arg-type]
    recorder.suggest_pieces(pieces)


def narrow(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    dim, start, length = (args[i] if len(args) > i else kwargs[k] for i, k in ((1, "dim"), (2, "start"), (3, "length")))
    dim = plain(dim)
    if isinstance(start, Tensor):
        recorder.fix(labels_of(args[0])[dim], "narrowed at a position that depends on data")
        return
    _require_prefix(recorder, labels_of(args[0])[dim], args[0].size(dim), start)
    recorder.require(length, labels_of(out)[dim], out.size(dim))


def _require_prefix(recorder: Recorder, labels: np.ndarray | None, size: int, stop: Any) -> None:
    """A cut after `stop` channels (from the end, if negative) must stay between the same channels."""
    number = plain(stop)
    if labels is None or number is None:
        return
    if isinstance(number, Tensor) or not hasattr(number, "__index__"):
        recorder.fix(labels, "cut at a position that depends on data")
    elif int(number) < 0:
        recorder.require(-stop, labels[int(number) :], min(-int(number), size))
    elif int(number) > 0:
        beyond = int(number) > size  # then only a size that is written out stays beyond
        recorder.require(stop, labels[: int(number)], int(number)) if not beyond else recorder.require(
            stop, None, int(number)
        )


def getitem(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """x[:, a:b]."""
    tensor, item = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    consumed = sum(_span(i) for i in item)
    dim = 0
    for i in item:
        if i is Ellipsis:
            dim += tensor.dim() - consumed
            continue
        labels = labels_of(tensor)[dim] if _span(i) and dim < tensor.dim() else None
        if isinstance(i, slice) and labels is not None:
            if i.step is not None and plain(i.step) != 1:
                recorder.fix(labels, "sliced with a step")
            _require_prefix(recorder, labels, tensor.size(dim), i.start)
            _require_prefix(recorder, labels, tensor.size(dim), i.stop)
        elif isinstance(i, int) and not isinstance(i, bool):
            recorder.fix(labels, "channels picked by number")
            recorder.require(i, None, plain(i))
        dim += _span(i)


def _span(item: Any) -> int:
    """How many dimensions one entry of an index consumes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 1
