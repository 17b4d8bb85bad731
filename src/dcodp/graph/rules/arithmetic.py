"""Label rules of pointwise operations: the labels of broadcast operands are joined."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dcodp.graph.labels import (
    Axes,
    is_zero,
    labels_of,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder

# Values of removed channels are 0 behind these, if they were 0 before.
ZERO_PRESERVING = {
    "relu", "relu_", "silu", "silu_", "gelu", "gelu_", "hardswish", "hardswish_", "leaky_relu", "leaky_relu_", "tanh",
    "elu", "elu_", "mish", "mish_", "relu6", "neg", "abs", "clone", "detach", "alias", "_to_copy", "dropout",
    "lift_fresh", "prelu", "_prelu_kernel", "softsign", "erf", "sin", "sign", "round",
}  # fmt: skip


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


def like(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """zeros_like and kin, noise written in place: shaped like their argument, channels included."""
    result(out, labels_of(args[0]), func._schema.name == "aten::zeros_like")


def fresh(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """new_zeros, arange …: values that depend on no channel."""
    for tensor in tensors_in(out):
        result(tensor, [None] * tensor.dim())
