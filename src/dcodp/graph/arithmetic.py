"""Label rules of operations on values: pointwise operations, normalisation, reductions, spatial operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dcodp.graph.labels import FIXED, Axes, is_zero, labels_of, operation, result, tensors_in

if TYPE_CHECKING:
    from dcodp.graph.recording import Recorder

# Values of removed channels are 0 behind these, if they were 0 before.
ZERO_PRESERVING = {
    "relu", "relu_", "silu", "silu_", "gelu", "gelu_", "hardswish", "hardswish_", "leaky_relu", "leaky_relu_", "tanh",
    "elu", "elu_", "mish", "mish_", "relu6", "neg", "abs", "clone", "detach", "alias", "_to_copy", "dropout",
    "lift_fresh", "prelu", "_prelu_kernel", "softsign", "erf", "sin", "sign", "round",
}  # fmt: skip


# --- pointwise -------------------------------------------------------------------------------------------------------


def join(recorder: Recorder, tensors: list[Tensor], rank: int) -> Axes:
    """Tie the labels of broadcast operands; returns the result's axes for a result of `rank` dimensions."""
    axes: Axes = []
    for back in range(-rank, 0):
        present = [(t.size(back), labels_of(t)[back]) for t in tensors if t.dim() >= -back]
        size = max((n for n, _ in present), default=1)
        members = [a for n, a in present if n == size and size > 1]
        labelled = [a for a in members if a is not None]
        for other in labelled[1:]:
            recorder.tie(labelled[0], other, "joined with fixed channels")
        if labelled and len(labelled) < len(members):
            recorder.fix(labelled[0], "joined with values that no parameter owns")
        axes.append(labelled[0] if labelled else None)
    return axes


def pointwise(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    operands = tensors_in((args, kwargs))
    name = func._schema.name.split("::")[1]
    zeros = [is_zero(t) for t in operands]
    if name in ("mul", "mul_"):
        zero = any(zeros)
    elif name in ("div", "div_"):
        zero = bool(zeros) and zeros[0]
    elif name in ("add", "add_", "sub", "sub_"):
        zero = all(zeros) and len(operands) == sum(isinstance(a, Tensor) for a in args[:2]) == 2
    else:
        zero = name in ZERO_PRESERVING and all(zeros)
    for tensor in tensors_in(out):
        result(tensor, join(recorder, operands, tensor.dim()), zero)


# --- normalisation and reduction ---


def batch_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x = args[0]
    vectors = [t for t in args[1:5] if isinstance(t, Tensor)]
    channel = labels_of(x)[1]
    for vector in vectors:
        recorder.meet(channel, labels_of(vector)[0])
    affine = all(t is not None and is_zero(t) for t in args[1:3])
    outputs = tensors_in(out)
    result(outputs[0], labels_of(x), affine)


def group_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """native_group_norm(x, weight, bias, N, C, HxW, groups, eps): a normalisation group goes as a whole."""
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    channel = labels_of(x)[1]
    if channel is None or weight is None or not recorder.owns_groups(weight):
        recorder.fix(channel, "group normalisation without parameters")
        recorder.fix_all((weight, bias), "group normalisation of fixed channels")
    else:
        blocks = channel.reshape(groups, -1)
        for column in blocks.T[1:]:
            recorder.tie(blocks[:, 0], column)
        for vector in (weight, bias):
            recorder.meet(channel, labels_of(vector)[0])
        recorder.follow_groups(weight, blocks[:, 0])
    result(tensors_in(out)[0], labels_of(x), bias is not None)


def layer_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, shape = args[0], args[1]
    normalised = range(x.dim() - len(shape), x.dim())
    recorder.fix_dims(x, normalised, f"{operation(func)} mixes the channels")
    recorder.fix_all(args[2:4], f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out)[:1]:
        result(tensor, [a if d not in normalised else None for d, a in enumerate(labels_of(x))])


def _dims(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> list[int]:
    """The `dim` argument as non-negative integers; all dimensions where it is absent."""
    names = [a.name for a in func._schema.arguments]
    dim = kwargs.get("dim")
    if dim is None and "dim" in names and names.index("dim") < len(args):
        dim = args[names.index("dim")]
    elif dim is None and "dim" in names:
        dim = func._schema.arguments[names.index("dim")].default_value
    if dim is None or dim == []:
        return list(range(rank))
    return [int(d) % rank for d in (dim if isinstance(dim, list | tuple) else [dim])] if rank else []


def reduction(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    if not (func._schema.name == "aten::sum" and is_zero(x)):
        recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out):
        kept = [a for d, a in enumerate(labels_of(x)) if d not in dims]
        if tensor.dim() == x.dim():
            kept = [None if d in dims else a for d, a in enumerate(labels_of(x))]
        result(tensor, kept, func._schema.name in ("aten::sum", "aten::mean") and is_zero(x))


def along(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """softmax, sort, top-k, cumulative sums: the dimension worked along is fixed, the others pass."""
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out):
        result(tensor, [None if d in dims else a for d, a in enumerate(labels_of(x))])


# --- spatial operations ---


def spatial(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Pooling, resizing, reflection padding: batch and channel pass, positions are fixed."""
    x = args[0]
    first = 2 if x.dim() >= 3 and not (x.dim() == 3 and "2d" in func._schema.name) else 1
    recorder.fix_dims(x, range(first, x.dim()), "positions")
    for tensor in tensors_in(out):
        result(tensor, [*labels_of(x)[:first], *[None] * (tensor.dim() - first)], is_zero(x))


def regions(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """roi_align, roi_pool, grid_sample: channels of the features pass, boxes and grids are fixed."""
    x = args[0]
    recorder.fix_dims(x, [0, *range(2, x.dim())], "positions")
    recorder.fix_all(args[1:], "coordinates to sample at")
    for tensor in tensors_in(out):
        result(tensor, [None, labels_of(x)[1], *[None] * (tensor.dim() - 2)], is_zero(x))


def pad(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, padding = args[0], args[1]
    axes = list(labels_of(x))
    for i in range(len(padding) // 2):
        dim, (before, after) = x.dim() - 1 - i, padding[2 * i : 2 * i + 2]
        labels = axes[dim]
        if labels is not None and (before or after):
            if before < 0 or after < 0:
                recorder.fix(labels, "channels cut off by a fixed number")
            kept = labels[max(0, -before) : len(labels) - max(0, -after)]
            axes[dim] = np.pad(kept, (max(0, before), max(0, after)), constant_values=FIXED)
    result(out, axes)
