"""What each ATen operation does to labels.

Four kinds cover nearly everything, and PyTorch's own tags tell them apart: pointwise operations join their operands'
labels; contractions (convolution, matmul) join the contracted dimensions and pass the others on; reductions and
normalisations fix what they mix; data movement is run a second time on the labels themselves. An operation that is
not known fixes every channel it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from dcodp.graph.labels import FIXED, Axes, labels_of, put_labels, spread, varying_dims

if TYPE_CHECKING:
    from dcodp.graph.recording import Recorder

Rule = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any], Any], None]

# Values of removed channels are 0 behind these, if they were 0 before.
ZERO_PRESERVING = {
    "relu", "relu_", "silu", "silu_", "gelu", "gelu_", "hardswish", "hardswish_", "leaky_relu", "leaky_relu_", "tanh",
    "elu", "elu_", "mish", "mish_", "relu6", "neg", "abs", "clone", "detach", "alias", "_to_copy", "dropout",
    "lift_fresh", "prelu", "_prelu_kernel", "softsign", "erf", "sin", "sign", "round",
}  # fmt: skip


def tensors_in(tree: Any) -> list[Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def is_zero(tensor: Tensor) -> bool:
    """Whether removed channels hold 0 in this tensor (so that a sum over channels does not miss them)."""
    return getattr(tensor, "_dcodp_zero", False)


def result(out: Tensor, axes: Axes, zero: bool = False) -> None:
    put_labels(out, axes)
    out._dcodp_zero = zero  # type: ignore[attr-defined]


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
            recorder.labels.tie(labelled[0], other, f"joined with fixed channels in {recorder.where}")
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


# --- contractions ----------------------------------------------------------------------------------------------------


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
    _convolve(recorder, x, weight, bias, False, groups, out)


def _convolve(
    recorder: Recorder, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, groups: int, out: Tensor
) -> None:
    w = labels_of(weight)
    inner, outer = (w[0], w[1]) if transposed else (w[1], w[0])
    if x.dim() == weight.dim() - 1:  # an image without a batch dimension
        recorder.fix_all((x, weight, bias), "a convolution without a batch dimension")
        return
    if groups > 1:
        outer = _grouped(recorder, labels_of(x)[1], weight, transposed, groups)
    else:
        recorder.contract(x, labels_of(x)[1], weight, inner)
    recorder.fix_dims(weight, range(2, weight.dim()), "kernel positions")
    recorder.fix_dims(x, range(2, x.dim()), "positions of a convolution")
    if bias is not None:
        recorder.meet(outer, labels_of(bias)[0])
    zero = is_zero(weight) and (bias is None or is_zero(bias))
    result(out, [labels_of(x)[0], outer, *[None] * (out.dim() - 2)], zero)


def _grouped(
    recorder: Recorder, inputs: np.ndarray | None, weight: Tensor, transposed: bool, groups: int
) -> np.ndarray | None:
    """Grouped and depthwise convolution: a group of the convolution goes as a whole, `groups` shrinks with it."""
    w = labels_of(weight)
    recorder.fix(w[1], "channels inside a group of a convolution")
    if inputs is None or w[0] is None or not recorder.owns_groups(weight):
        recorder.fix(inputs, "grouped convolution with a fixed number of groups")
        recorder.fix(w[0], "grouped convolution with a fixed number of groups")
        return None
    blocks = inputs.reshape(groups, -1)
    own = w[0].reshape(groups, -1)
    for members in (blocks[:, 1:], own):
        for column in members.T:
            recorder.labels.tie(blocks[:, 0], column)
    recorder.follow_groups(weight, blocks[:, 0])
    return np.repeat(blocks[:, 0], weight.size(1)) if transposed else w[0]


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
    zero = all(is_zero(t) for t, d in ((left, -2), (right, -1)) if t.dim() > 1 and labels_of(t)[d] is not None)
    if bias is not None:
        zero = zero and is_zero(bias)
        result(out, axes)
        axes = join(recorder, [out, bias], out.dim())
    result(out, axes, zero)


# --- normalisation, reduction, attention -----------------------------------------------------------------------------


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
            recorder.labels.tie(blocks[:, 0], column)
        for vector in (weight, bias):
            recorder.meet(channel, labels_of(vector)[0])
        recorder.follow_groups(weight, blocks[:, 0])
    result(tensors_in(out)[0], labels_of(x), bias is not None)


def layer_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, shape = args[0], args[1]
    normalised = range(x.dim() - len(shape), x.dim())
    recorder.fix_dims(x, normalised, f"{func} mixes the channels")
    recorder.fix_all(args[2:4], f"{func} mixes the channels")
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
        recorder.fix_dims(x, dims, f"{func} mixes the channels")
    for tensor in tensors_in(out):
        kept = [a for d, a in enumerate(labels_of(x)) if d not in dims]
        if tensor.dim() == x.dim():
            kept = [None if d in dims else a for d, a in enumerate(labels_of(x))]
        result(tensor, kept, func._schema.name in ("aten::sum", "aten::mean") and is_zero(x))


def along(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """softmax, sort, top-k, cumulative sums: the dimension worked along is fixed, the others pass."""
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    recorder.fix_dims(x, dims, f"{func} mixes the channels")
    for tensor in tensors_in(out):
        result(tensor, [None if d in dims else a for d, a in enumerate(labels_of(x))])


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
    first = tensors_in(out)[0]
    result(first, [*q[:-2], None, v[-1]], is_zero(value))


# --- spatial operations ----------------------------------------------------------------------------------------------


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


# --- data movement ---------------------------------------------------------------------------------------------------


def move(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Run the same operation on the labels and read off where each coordinate went."""
    x = args[0]
    if not recorder.sizes_seen and func._schema.name in ("aten::slice", "aten::split", "aten::split_with_sizes"):
        whole = [tensors_in(out)[0].size(d) == x.size(d) for d in range(x.dim())]
        recorder.fix_dims(x, [d for d, same in enumerate(whole) if not same], "cut at a size that was not observed")
    carry(recorder, func, args, kwargs, out, [d for d, a in enumerate(labels_of(x)) if a is not None])


def carry(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, dims: list[int]
) -> None:
    x = args[0]
    outputs = tensors_in(out)
    axes: list[Axes] = [[None] * t.dim() for t in outputs]
    for dim in dims:
        labels = labels_of(x)[dim]
        assert labels is not None
        moved = tensors_in(_run_on(func, spread(labels, dim, x.shape), args[1:], kwargs))
        for target, where_to in zip(axes, moved, strict=True):
            _read_off(recorder, where_to, target)
    for tensor, target in zip(outputs, axes, strict=True):
        result(tensor, target, is_zero(x))


def _run_on(func: Any, labels: Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return func(labels, *rest, **kwargs)
    except RuntimeError:  # a view that strides of 0 do not allow
        return func(labels.contiguous(), *rest, **kwargs)


def _read_off(recorder: Recorder, moved: Tensor, axes: Axes) -> None:
    """Find the dimension of `moved` (labels after the operation) that now carries the channels."""
    dims = varying_dims(moved)
    if not dims:
        if moved.numel():
            recorder.fix(moved.flatten()[:1].numpy(), "a single channel is picked out")
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
    recorder.labels.tie(first.expand_as(moved).flatten().numpy(), moved.flatten().numpy())
    return first


def pick(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """select, unbind, index_select, roll, gather: channels along the worked dimension are picked by number."""
    x = args[0]
    names = [a.name for a in func._schema.arguments]
    key = "dims" if "dims" in names else "dim"
    position = names.index(key)
    dim = kwargs.get(key, args[position] if position < len(args) else func._schema.arguments[position].default_value)
    fixed = [int(d) % x.dim() for d in (dim if isinstance(dim, list | tuple) else [dim])] if x.dim() else []
    recorder.fix_dims(x, fixed or range(x.dim()), f"{func} picks channels by number")
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
            recorder.labels.tie(blocks[:, 0], column)
        channel = blocks[:, 0]
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def pixel_unshuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, factor = args[:2]
    axes = labels_of(x)
    channel = None if axes[-3] is None else np.repeat(axes[-3], factor * factor)
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def channel_shuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, groups = args[:2]
    axes = list(labels_of(x))
    if axes[1] is not None:
        rows = np.reshape(axes[1], (groups, -1))
        for row in rows[1:]:
            recorder.labels.tie(rows[0], row)
        axes[1] = rows.T.flatten()
    result(out, axes, is_zero(x))


def embedding(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    recorder.fix(labels_of(args[0])[0], "rows of an embedding")
    recorder.fix_all(args[1], "used as an index")
    result(out, [*[None] * (out.dim() - 1), labels_of(args[0])[1]], True)


def like(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """zeros_like and kin: shaped like their argument, channels included."""
    result(out, labels_of(args[0]), func._schema.name == "aten::zeros_like")


def fresh(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """new_zeros, arange …: values that depend on no channel."""
    for tensor in tensors_in(out):
        result(tensor, [None] * tensor.dim())


def unknown(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    recorder.fix_all((args, kwargs), f"{func} is not understood")
    fresh(recorder, func, args, kwargs, out)


def _table() -> dict[str, Rule]:
    groups: dict[Rule, str] = {
        convolution: "convolution _convolution convolution_overrideable cudnn_convolution mkldnn_convolution",
        matmul: "mm bmm addmm baddbmm mv dot",
        batch_norm: "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit cudnn_batch_norm "
        "miopen_batch_norm _batch_norm_with_update _batch_norm_no_update",
        group_norm: "native_group_norm",
        layer_norm: "native_layer_norm _fused_rms_norm rms_norm",
        reduction: "sum mean amax amin max min prod std var std_mean var_mean norm linalg_vector_norm all any argmax "
        "argmin logsumexp median nanmedian std_mean aminmax",
        along: "_softmax _log_softmax softmax log_softmax sort argsort topk cumsum cumprod _safe_softmax logcumsumexp "
        "cummax cummin kthvalue mode",
        attention: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        spatial: "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_bilinear2d "
        "upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
        "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d max_pool2d",
        pad: "constant_pad_nd",
        move: "view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand slice split "
        "split_with_sizes repeat flip detach alias clone contiguous _to_copy lift_fresh lift "
        "unfold diagonal swapaxes numpy_T view_copy",
        pick: "select unbind index_select roll",
        gather: "gather",
        index: "index _unsafe_index",
        index_put: "index_put index_put_",
        cat: "cat",
        stack: "stack",
        pixel_shuffle: "pixel_shuffle",
        pixel_unshuffle: "pixel_unshuffle",
        channel_shuffle: "native_channel_shuffle channel_shuffle",
        embedding: "embedding",
        like: "zeros_like ones_like empty_like full_like rand_like randn_like",
        fresh: "new_zeros new_ones new_empty new_full new_empty_strided",
        pointwise: "copy_ fill_ zero_ copy hardswish_ floor_divide floor_divide_ native_dropout _prelu_kernel",
    }
    table = {f"aten::{name}": rule for rule, names in groups.items() for name in names.split()}
    return {
        **table,
        "aten::grid_sampler_2d": regions,
        "torchvision::roi_align": regions,
        "torchvision::roi_pool": regions,
        "torchvision::deform_conv2d": deformable_convolution,
    }


TABLE = _table()
LAYER_RULES = (convolution, matmul, deformable_convolution, embedding)  # these apply a layer's weight


def rule_for(func: Any) -> Rule:
    """The rule of an ATen overload: by name, else by PyTorch's own tags, else unknown."""
    named = TABLE.get(func._schema.name)
    if named is not None and not (func._schema.name == "aten::where" and len(func._schema.arguments) == 1):
        if func._schema.name in ("aten::max", "aten::min") and func._overloadname == "other":
            return pointwise
        return named
    if torch.Tag.pointwise in func.tags:
        return pointwise
    return unknown
