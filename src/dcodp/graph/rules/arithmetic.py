"""Label rules of pointwise operations: the labels of broadcast operands are joined."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dcodp.graph.labels import (
    Axes,
    is_zero,
    labels_of,
    operation,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder

# Values of removed channels are 0 behind these, if they were 0 before.
ZERO_PRESERVING = {
    "relu", "silu", "gelu", "hardswish", "leaky_relu", "tanh", "elu", "celu", "selu", "mish", "relu6", "neg", "abs",
    "clone", "detach", "alias", "_to_copy", "dropout", "lift_fresh", "prelu", "_prelu_kernel", "softsign", "erf", "sin",
    "tan", "asin", "atan", "sinh", "asinh", "atanh", "sign", "sgn", "round", "floor", "ceil", "trunc", "frac", "sqrt",
    "square", "expm1", "log1p", "hardshrink", "softshrink", "tanhshrink", "nan_to_num", "rrelu_with_noise", "erfinv",
    "real", "conj_physical", "_conj", "_neg_view", "deg2rad", "rad2deg", "fix", "native_dropout",
}  # fmt: skip
BOUNDED = ("hardtanh", "clamp", "clip")  # 0 stays 0 where it is within the bounds
SINGULAR = ("rsqrt", "reciprocal", "log", "log2", "log10", "xlogy")  # not finite at 0


def join(recorder: Recorder, tensors: list[Tensor], rank: int) -> Axes:
    """Tie the labels of broadcast operands; returns the result's axes for a result of `rank` dimensions.

    Where one of them has none, the others can lose nothing, and neither can the result: it is zero, say, where its
    channels go, though a parameter has a label for each position as well.
    """
    axes: Axes = []
    for back in range(-rank, 0):
        present = [(t.size(back), labels_of(t)[back]) for t in tensors if t.dim() >= -back]
        size = max((n for n, _ in present), default=1)
        members = [a for n, a in present if n == size and size > 1]
        labelled = [a for a in members if a is not None]
        for other in labelled[1:]:
            recorder.tie(labelled[0], other, "joined with fixed channels")
        stays = len(labelled) < len(members)
        if labelled and stays:
            recorder.fix(labelled[0], "joined with values that no parameter owns")
        axes.append(labelled[0] if labelled and not stays else None)
    return axes


def pointwise(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    operands = tensors_in((args, kwargs))
    name = func._schema.name.split("::")[1].removesuffix("_")
    _keep_finite(recorder, name, args)
    for tensor in tensors_in(out):
        axes = join(recorder, operands, tensor.dim())
        result(tensor, axes, _stays_zero(name, args, operands, axes))


def _keep_finite(recorder: Recorder, name: str, args: tuple[Any, ...]) -> None:
    """Where a removed channel is 0, dividing by it gives no number in the dense net."""
    first, *others = args or (None,)
    divisor = others[0] if name in ("div", "floor_divide", "remainder", "fmod") and others else None
    if name in SINGULAR or (name == "pow" and others and _negative(others[0])):
        divisor = first
    if isinstance(divisor, Tensor) and is_zero(divisor):
        recorder.fix_dims(divisor, range(divisor.dim()), "divided by what is 0 where a channel is removed")


def _negative(value: Any) -> bool:
    return not isinstance(value, Tensor) and value < 0


def _stays_zero(name: str, args: tuple[Any, ...], operands: list[Tensor], axes: Axes) -> bool:
    """Whether the result is 0 wherever any of its labelled dimensions loses a coordinate."""
    labelled = {d - len(axes) for d, labels in enumerate(axes) if labels is not None}
    covered = [labelled & _labelled_dims(t) if is_zero(t) else set() for t in operands]
    if name == "mul":
        return labelled <= set().union(*covered)
    everywhere = [is_zero(t) and labelled <= c for t, c in zip(operands, covered, strict=True)]
    if name == "div":
        return bool(everywhere) and everywhere[0] and isinstance(args[0], Tensor)
    if name in ("add", "sub"):
        return all(everywhere) and len(operands) == sum(isinstance(a, Tensor) for a in args[:2]) == 2
    if name in BOUNDED:
        return all(everywhere) and _contains_zero(args)
    if name == "pow":
        return bool(everywhere) and everywhere[0] and not isinstance(args[-1], Tensor) and args[-1] > 0
    return name in ZERO_PRESERVING and all(everywhere)


def _labelled_dims(tensor: Tensor) -> set[int]:
    """Counted from the end."""
    return {d - tensor.dim() for d, labels in enumerate(labels_of(tensor)) if labels is not None}


def _contains_zero(args: tuple[Any, ...]) -> bool:
    """Whether 0 lies within the bounds of hardtanh(x, low, high) or clamp(x, low, high), default −1 and 1."""
    low, high = (*args[1:3], -1.0, 1.0)[:2] if len(args) < 3 else args[1:3]
    bounds = [b for b in (low, high) if not isinstance(b, Tensor)]
    return len(bounds) == 2 and (low is None or low <= 0) and (high is None or high >= 0)


def triangular(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """tril, triu: what stays depends on the position in the last two dimensions."""
    x = args[0]
    recorder.fix_dims(x, range(max(x.dim() - 2, 0), x.dim()), f"{operation(func)} tells positions apart")
    result(out, labels_of(x), is_zero(x))


def loss(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """mse_loss and kin: pointwise without a reduction; a mean counts the channels."""
    if out.dim() == args[0].dim() > 0:
        pointwise(recorder, func, args, kwargs, out)
    else:
        recorder.fix_all((args, kwargs), f"{operation(func)} mixes the channels")
        fresh(recorder, func, args, kwargs, out)


def like(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """zeros_like and kin, noise written in place: shaped like their argument, channels included."""
    result(out, labels_of(args[0]), func._schema.name == "aten::zeros_like")


def fresh(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """new_zeros, arange …: values that depend on no channel."""
    for tensor in tensors_in(out):
        result(tensor, [None] * tensor.dim())
