"""Which label rule an ATen operation follows: by name, else by PyTorch's own tags, else unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dcodp.graph.recording import Recorder
from dcodp.graph.rules.arithmetic import fresh, like, loss, pointwise, triangular
from dcodp.graph.rules.contractions import attention, convolution, deformable_convolution, matmul
from dcodp.graph.rules.indexing import embedding, gather, index, index_put, pick
from dcodp.graph.rules.joining import cat, channel_shuffle, gated, pixel_shuffle, pixel_unshuffle, stack
from dcodp.graph.rules.movement import as_complex, as_real, from_patches, move, patches, same, strided, view
from dcodp.graph.rules.normalisation import batch_norm, group_norm, layer_norm, weight_norm
from dcodp.graph.rules.reductions import along, reduction
from dcodp.graph.rules.spatial import pad, regions, spatial

Rule = Callable[[Recorder, Any, tuple[Any, ...], dict[str, Any], Any], None]


def unknown(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    recorder.fix_all((args, kwargs), f"{func} is not understood")
    fresh(recorder, func, args, kwargs, out)


def _table() -> dict[str, Rule]:
    groups: dict[Rule, str] = {
        convolution: "convolution _convolution convolution_overrideable cudnn_convolution mkldnn_convolution",
        matmul: "mm bmm addmm baddbmm mv dot vdot addmv addmm_ baddbmm_ addmv_",
        batch_norm: "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit cudnn_batch_norm "
        "miopen_batch_norm _batch_norm_with_update _batch_norm_no_update",
        group_norm: "native_group_norm",
        layer_norm: "native_layer_norm _fused_rms_norm rms_norm",
        weight_norm: "_weight_norm_interface",
        reduction: "sum mean amax amin max min prod std var std_mean var_mean norm linalg_vector_norm all any argmax "
        "argmin logsumexp median nanmedian aminmax nansum count_nonzero",
        along: "_softmax _log_softmax softmax log_softmax sort argsort topk cumsum cumprod _safe_softmax logcumsumexp "
        "cummax cummin kthvalue mode _masked_softmax cumsum_ cumprod_ _fft_r2c _fft_c2r _fft_c2c",
        attention: "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        spatial: "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_bilinear2d "
        "upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
        "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d max_pool2d "
        "reflection_pad3d replication_pad3d _upsample_nearest_exact1d _upsample_nearest_exact3d _upsample_lanczos2d_aa "
        "adaptive_avg_pool2d adaptive_avg_pool3d",
        pad: "constant_pad_nd",
        same: "detach alias clone contiguous _to_copy lift_fresh lift detach_ detach_copy alias_copy lift_fresh_copy "
        "_lazy_clone _pin_memory",
        view: "view _unsafe_view reshape _reshape_alias view_copy",
        move: "permute transpose t squeeze unsqueeze expand slice split split_with_sizes repeat flip unfold diagonal "
        "swapaxes numpy_T unsafe_split unsafe_split_with_sizes permute_copy transpose_copy t_copy squeeze_copy "
        "unsqueeze_copy expand_copy",
        pick: "select unbind index_select roll rot90",
        gather: "gather",
        index: "index _unsafe_index",
        index_put: "index_put index_put_",
        cat: "cat",
        stack: "stack",
        pixel_shuffle: "pixel_shuffle",
        gated: "glu",
        pixel_unshuffle: "pixel_unshuffle",
        channel_shuffle: "native_channel_shuffle channel_shuffle",
        embedding: "embedding",
        like: "zeros_like ones_like empty_like full_like rand_like randn_like bernoulli bernoulli_ uniform_ normal_ "
        "exponential_ random_",
        fresh: "new_zeros new_ones new_empty new_full new_empty_strided",
        pointwise: "copy_ fill_ zero_ copy fill zero hardswish hardswish_ floor_divide floor_divide_ native_dropout "
        "_prelu_kernel _add_relu _add_relu_ abs_ complex copysign_ eq_ ge_ gelu_ gt_ heaviside_ le_ lt_ mish_ ne_ "
        "polar rrelu_with_noise rrelu_with_noise_ rsub threshold_ xlogy_ _conj _neg_view masked_fill_ gcd_ lcm_ "
        "log_sigmoid_forward",
        triangular: "tril triu tril_ triu_",
        loss: "mse_loss smooth_l1_loss huber_loss soft_margin_loss binary_cross_entropy "
        "binary_cross_entropy_with_logits",
        strided: "as_strided as_strided_",
        as_complex: "view_as_complex",
        as_real: "view_as_real",
        patches: "im2col",
        from_patches: "col2im",
    }
    table = {f"aten::{name}": rule for rule, names in groups.items() for name in names.split()}
    return {
        **table,
        "aten::grid_sampler_2d": regions,
        "aten::grid_sampler_3d": regions,
        "torchvision::roi_align": regions,
        "torchvision::roi_pool": regions,
        "torchvision::deform_conv2d": deformable_convolution,
    }


TABLE = _table()
LAYER_RULES = (convolution, matmul, deformable_convolution, embedding)  # these apply a layer's weight


def operands_of(rule: Rule, func: Any, args: tuple[Any, ...]) -> list[tuple[torch.Tensor, int, int]]:
    """What may be a layer's weight among the operands of one of LAYER_RULES, each with its dimensions of output and of
    input channels; the likeliest last."""
    if rule is embedding:
        return [(args[0], -1, 0)]
    if rule is not matmul:
        transposed = rule is convolution and args[6] and args[8] == 1
        return [(args[1], 1, 0) if transposed else (args[1], 0, 1)]
    left, right = args[1:3] if func._schema.name.split("::")[1].startswith(("add", "badd")) else args[:2]
    sides = [(left, -2, -1), (right, -1, -2)]
    return [side for side in sides if side[0].dim() > 1]


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


def blind_to_sizes(name: str) -> bool:
    """Whether an operation (aten::…) does the same whatever size its operands have, and takes no sizes."""
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    rules = (pointwise, same, convolution, matmul, batch_norm, reduction, along, cat)
    return packet is not None and any(rule_for(getattr(packet, o)) in rules for o in packet.overloads())
