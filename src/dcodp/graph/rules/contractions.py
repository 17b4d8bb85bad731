"""Label rules of the operations that sum over channels: convolution, matrix product, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dcodp.graph.cost import Dimension
from dcodp.graph.labels import Axes, is_zero, labels_of, other_dims, result, tensors_in
from dcodp.graph.recording import Recorder
from dcodp.graph.rules.arithmetic import join


def convolution(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, weight, bias, *_ = args
    transposed, groups = args[6], args[8]
    _convolve(recorder, x, weight, bias, transposed, groups, out)


def deformable_convolution(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> None:
    x, weight, offset, mask, bias, *_, groups, offset_groups, _ = args
    for extra in (offset, mask):
        recorder.fix_all(extra, "offsets of a deformable convolution")
    if offset_groups > 1:
        recorder.fix(labels_of(x)[1], "offset groups of a deformable convolution")
    _convolve(recorder, x, weight, bias, False, groups, out, following=True)  # torchvision counts them in the weight


def _convolve(
    recorder: Recorder,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transposed: bool,
    groups: int,
    out: Tensor,
    following: bool = False,
) -> None:
    """`following`: the number of groups is found from the weight at each call."""
    w = labels_of(weight)
    inner, outer = (w[0], w[1]) if transposed else (w[1], w[0])
    if x.dim() == weight.dim() - 1:  # an image without a batch dimension
        recorder.fix_all((x, weight, bias), "a convolution without a batch dimension")
        return
    if groups > 1:
        outer = _grouped(recorder, x, weight, transposed, groups, following)
    else:
        recorder.contract(x, labels_of(x)[1], weight, inner)
    recorder.fix_dims(weight, range(2, weight.dim()), "kernel positions")
    recorder.fix_dims(x, range(2, x.dim()), "positions of a convolution")
    if bias is not None:
        recorder.meet(outer, labels_of(bias)[0])
    positions = (x if transposed else out).shape[2:].numel() * weight.shape[2:].numel()
    recorder.spend((None, x.size(0) * positions), (w[0], weight.size(0)), (w[1], weight.size(1)))
    axes = [labels_of(x)[0], outer, *[None] * (out.dim() - 2)]
    zero = is_zero(weight) and (bias is None or is_zero(bias))
    result(out, axes, zero and (not other_dims(axes, 1) or (bias is None and is_zero(x))))


def _grouped(
    recorder: Recorder, x: Tensor, weight: Tensor, transposed: bool, groups: int, following: bool
) -> np.ndarray | None:
    """Grouped and depthwise convolution: a group of the convolution goes as a whole, `groups` shrinks with it."""
    inputs, w = labels_of(x)[1], labels_of(weight)
    blocks = None if inputs is None else inputs.reshape(groups, -1)
    if blocks is not None and not transposed and (blocks == blocks[0]).all() and w[1] is not None:
        recorder.contract(x, blocks[0], weight, w[1])  # a group for each image: the same channels in all of them
        rows = [] if w[0] is None else w[0].reshape(groups, -1)
        for row in rows[1:]:
            recorder.tie(rows[0], row)
        return w[0]
    recorder.fix(w[1], "channels inside a group of a convolution")
    if blocks is None or w[0] is None or not (following or recorder.follow_groups(blocks[:, 0])):
        reason = "grouped convolution of fixed channels" if inputs is None else "a fixed number of groups"
        recorder.fix(inputs, reason)
        recorder.fix(w[0], reason)
        return None
    own = w[0].reshape(groups, -1)
    for members in (blocks[:, 1:], own):
        for column in members.T:
            recorder.tie(blocks[:, 0], column)
    return np.repeat(blocks[:, 0], weight.size(1)) if transposed else w[0]


def _sized(tensor: Tensor) -> list[Dimension]:
    return list(zip(labels_of(tensor), tensor.shape, strict=True))


def matmul(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """mm, bmm, mv, dot, addmm, baddbmm: the last dimension of the left meets the second last of the right."""
    bias, left, right = (
        (None, *args[:2]) if not func._schema.name.split("::")[1].startswith(("add", "badd")) else args[:3]
    )
    a, b = labels_of(left), labels_of(right)
    contracted = b[-2] if right.dim() > 1 else b[0]
    recorder.contract(left, a[-1], right, contracted)
    batch: Axes = []
    if left.dim() == 3:
        recorder.meet(a[0], b[0])
        batch = [a[0] if a[0] is not None else b[0]]
    axes = [*batch, *([a[-2]] if left.dim() > 1 else []), *([b[-1]] if right.dim() > 1 else [])]
    recorder.spend(*_sized(left), *(_sized(right)[-1:] if right.dim() > 1 else ()))
    zero = all(is_zero(t) for t, d in ((left, -2), (right, -1)) if t.dim() > 1 and labels_of(t)[d] is not None)
    if batch and batch[0] is not None:
        zero = zero and (is_zero(left) or is_zero(right))
    if bias is not None:
        result(out, axes)
        axes = join(recorder, [out, bias], out.dim())
        own = [d - bias.dim() for d, labels in enumerate(labels_of(bias)) if labels is not None]
        zero = zero and is_zero(bias) and not other_dims(axes, *own)
    result(out, axes, zero)


def attention(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Fused scaled dot-product attention; without an explicit scale it divides by √dim, which must then stay."""
    query, key, value = args[:3]
    q, k, v = labels_of(query), labels_of(key), labels_of(value)
    if kwargs.get("scale") is None or not (is_zero(query) or is_zero(key)):
        recorder.fix(q[-1], "attention scales by the size of its heads")
        recorder.fix(k[-1], "attention scales by the size of its heads")
    recorder.meet(q[-1], k[-1])
    for dim in range(query.dim() - 2):
        recorder.meet(q[dim], k[dim])
        recorder.meet(q[dim], v[dim])
    for tensor, dim in ((query, -2), (key, -2), (value, -2)):
        recorder.fix(labels_of(tensor)[dim], "positions of an attention")
    for mask in tensors_in((args[3:], kwargs)):
        recorder.fix_dims(mask, range(max(mask.dim() - 2, 0), mask.dim()), "positions of an attention")
        for back in range(-min(mask.dim(), query.dim()), -2):
            if mask.size(back) > 1:
                recorder.meet(q[back], labels_of(mask)[back])
    recorder.spend(*_sized(query), _sized(key)[-2])
    recorder.spend(*_sized(query)[:-1], *_sized(value)[-2:])
    first = tensors_in(out)[0]
    result(first, [*q[:-2], None, v[-1]], is_zero(value))
