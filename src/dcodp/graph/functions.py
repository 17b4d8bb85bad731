"""What the model's Python code says about sizes: rules for calls that take sizes, and shapes that remember.

Runs one level above the ATen rules, where `x.view(b, self.heads, -1)` still shows the numbers as the model wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from dcodp.graph.labels import labels_of, put_labels
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import FromDimension, TracedInt, Uses, leaves, origin_of

Handler = Callable[[Recorder, tuple[Any, ...], dict[str, Any], Any], None]


SHAPE_GETTER = torch.Tensor.shape.__get__  # type: ignore[attr-defined]  # a new object at each access: compare with ==


class SizeMode(TorchFunctionMode):
    """Observes torch functions as the model calls them."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == SHAPE_GETTER:
            return traced_shape(args[0], func(*args), self.recorder.uses)
        if func is torch.Tensor.size:
            return _traced_size(func, args, kwargs, self.recorder.uses)
        if func in NOISE:  # does the same to all channels, or nothing
            return args[0]
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, TracedInt):
                value.note_read() if _sizes_understood(func) else value.note_value()
        self.recorder.hint, self.recorder.sizes_seen = _hint(func, args, kwargs), func in HANDLERS
        try:
            out = func(*args, **kwargs)
        finally:
            self.recorder.hint, self.recorder.sizes_seen = None, False
        handler = HANDLERS.get(func)
        if handler is not None:
            handler(self.recorder, args, kwargs, out)
        return out


def _sizes_understood(func: Any) -> bool:
    """Whether handlers or label rules look after the integers that a function is given."""
    return func in HANDLERS or func in GROUPED or getattr(func, "__name__", "").startswith("deform_conv2d")


def traced_shape(tensor: Tensor, shape: torch.Size, uses: Uses | None = None) -> torch.Size:
    """The shape with labelled dimensions as `TracedInt`s."""
    axes = labels_of(tensor)
    if all(a is None for a in axes):
        return shape
    return torch.Size(
        size if a is None else TracedInt(size, FromDimension(a), uses) for size, a in zip(shape, axes, strict=True)
    )


def _traced_size(func: Any, args: Any, kwargs: Any, uses: Uses) -> Any:
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    shape = traced_shape(args[0], func(args[0]), uses)
    return shape if dim is None else shape[dim]


def _sizes(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, start: int = 1) -> list[Any]:
    """`f(x, 2, 3)`, `f(x, (2, 3))` and `f(x, size=(2, 3))` alike."""
    rest = args[start:] or (kwargs.get(name, kwargs.get("size", ())),)
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple | torch.Size) else list(rest)


F = nn.functional
NOISE = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
         torch.feature_dropout, torch.alpha_dropout)  # fmt: skip
# Functions that are told a number of groups, which the label rules look after.
GROUPED = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.group_norm)
VIEWS = (torch.Tensor.view, torch.Tensor.reshape, torch.reshape)
EXPANDS = (torch.Tensor.expand,)
UNFLATTENS = (torch.Tensor.unflatten, torch.unflatten)


def _hint(func: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """The sizes a view asks for, as the model wrote them: they tell which dimension may shrink."""
    if func in VIEWS:
        sizes = _sizes(args, kwargs, "shape")
        return sizes if all(isinstance(s, int) for s in sizes) else None
    if func in UNFLATTENS:
        dim = args[1] % args[0].dim()
        return [-1] * dim + list(_unflatten_sizes(args, kwargs)) + [-1] * (args[0].dim() - dim - 1)
    return None


def _unflatten_sizes(args: Any, kwargs: Any) -> Iterable[Any]:
    sizes = args[2] if len(args) > 2 else kwargs["sizes"]
    return list(sizes)


def _view(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    for dim, size in enumerate(_hint(torch.Tensor.view, args, kwargs) or []):
        if size != -1:
            recorder.require(size, labels_of(out)[dim], out.size(dim))


def _unflatten(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    start = args[1] % args[0].dim()
    for offset, size in enumerate(_unflatten_sizes(args, kwargs)):
        if size != -1:
            recorder.require(size, labels_of(out)[start + offset], out.size(start + offset))


def _expand(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    for dim, size in enumerate(_sizes(args, kwargs, "size")):
        if size != -1:
            recorder.require(size, labels_of(out)[dim], out.size(dim))


def _like_other(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    for dim, size in enumerate(traced_shape(args[1], args[1].shape)):
        recorder.require(size, labels_of(out)[dim], out.size(dim))


def _repeat(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    for times in _sizes(args, kwargs, "repeats"):
        if isinstance(times, TracedInt):
            recorder.require(times, None, int(times))


def _split(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    size = args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_size"))
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    sizes = list(size) if isinstance(size, list | tuple) else [size] * len(out)
    for piece, wanted in zip(out, sizes, strict=True):
        if piece.size(dim) == int(wanted):  # the last piece may be smaller
            recorder.require(wanted, labels_of(piece)[dim], piece.size(dim))
    recorder.suggest_pieces([labels_of(p)[dim] for p in out])


def _chunk(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """Equal pieces lose the same channels, since the pruned tensor is again cut into equal pieces."""
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    sections = args[1] if len(args) > 1 else kwargs.get("chunks", kwargs.get("sections"))
    pieces = [labels_of(p)[dim] for p in out]
    first = pieces[0]
    if first is None or len(out) < 2:
        return
    if not isinstance(sections, int) or any(p is None or len(p) != len(first) for p in pieces):
        for piece in pieces:
            recorder.fix(piece, "cut into unequal chunks")
        return
    for piece in pieces[1:]:
        recorder.tie(first, piece)  # type: ignore[arg-type]
    recorder.suggest_pieces(pieces)


def _narrow(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    dim, start, length = (args[i] if len(args) > i else kwargs[k] for i, k in ((1, "dim"), (2, "start"), (3, "length")))
    if isinstance(start, Tensor):
        recorder.fix(labels_of(args[0])[dim], "narrowed at a position that depends on data")
        return
    _require_prefix(recorder, labels_of(args[0])[dim], args[0].size(dim), start)
    recorder.require(length, labels_of(out)[dim], out.size(dim))


def _require_prefix(recorder: Recorder, labels: np.ndarray | None, size: int, stop: Any) -> None:
    """A cut after `stop` channels (from the end, if negative) must stay between the same channels."""
    if labels is None or stop is None or int(stop) >= size:
        return
    if int(stop) < 0:
        recorder.require(-stop, labels[int(stop) :], -int(stop))
    elif int(stop) > 0:
        recorder.require(stop, labels[: int(stop)], int(stop))


def _getitem(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """x[:, a:b]: the bounds must follow the channels."""
    tensor, item = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    consumed = sum(_span(i) for i in item)
    dim = 0
    for i in item:
        if i is Ellipsis:
            dim += tensor.dim() - consumed
            continue
        labels = labels_of(tensor)[dim] if _span(i) and dim < tensor.dim() else None
        if isinstance(i, slice) and labels is not None:
            if i.step not in (None, 1):
                recorder.fix(labels, "sliced with a step")
            _require_prefix(recorder, labels, tensor.size(dim), i.start)
            _require_prefix(recorder, labels, tensor.size(dim), i.stop)
        elif isinstance(i, int) and not isinstance(i, bool):
            recorder.fix(labels, "channels picked by number")
        dim += _span(i)


def _span(item: Any) -> int:
    """How many dimensions one entry of an index consumes."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 1


def _factory(recorder: Recorder, args: Any, kwargs: Any, out: Tensor) -> None:
    """torch.zeros(n, x.shape[1], …): a dimension sized by channels will hold channels."""
    sizes = _sizes(args, kwargs, "size", start=0)[: out.dim()]
    counts = [any(isinstance(x, FromDimension) for x in leaves(origin_of(size))) for size in sizes]
    if any(counts):
        axes = [recorder.labels.fresh(int(s)) if c else None for s, c in zip(sizes, counts, strict=True)]
        put_labels(out, axes)
        out._dcodp_zero = True  # type: ignore[attr-defined]  # removed channels of a constant are cut off with it
        for size, labels in zip(sizes, axes, strict=True):
            recorder.require(size, labels, int(size))


def _opaque_attention(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """nn.MultiheadAttention computes its sizes inside: everything that enters or is projected stays as it is."""
    recorder.fix_all((args, kwargs), "the projections of a multi-head attention keep their sizes")
    recorder.fix_all(out, "the projections of a multi-head attention keep their sizes")


def _handlers() -> dict[Any, Handler]:
    groups: dict[Handler, tuple[Any, ...]] = {
        _view: VIEWS,
        _unflatten: UNFLATTENS,
        _expand: EXPANDS,
        _like_other: (torch.Tensor.view_as, torch.Tensor.reshape_as, torch.Tensor.expand_as),
        _repeat: (torch.Tensor.repeat, torch.Tensor.tile, torch.tile),
        _split: (torch.split, torch.Tensor.split, torch.Tensor.split_with_sizes, torch.split_with_sizes),
        _chunk: (torch.chunk, torch.Tensor.chunk, torch.tensor_split, torch.Tensor.tensor_split),
        _narrow: (torch.narrow, torch.Tensor.narrow),
        _getitem: (torch.Tensor.__getitem__, torch.Tensor.__setitem__),
        _factory: (torch.zeros,),
        _opaque_attention: (nn.functional.multi_head_attention_forward,),
    }
    return {function: handler for handler, functions in groups.items() for function in functions}


HANDLERS = _handlers()
