"""Label rules of normalisations: vectors run in step with the channels, mixed channels are fixed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dcodp.graph.labels import (
    is_zero,
    labels_of,
    operation,
    other_dims,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder

ALWAYS_STATISTICS = ("aten::_batch_norm_with_update",)
NEVER_STATISTICS = ("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")


def batch_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x = args[0]
    vectors = [t for t in args[1:5] if isinstance(t, Tensor)]
    channel = labels_of(x)[1]
    if _takes_statistics(func, args, kwargs):
        others = [d for d in range(x.dim()) if d != 1]
        recorder.fix_dims(x, others, "statistics are taken over what enters this batch norm")
    for vector in vectors:
        recorder.meet(channel, labels_of(vector)[0])
    affine = all(t is not None and is_zero(t) for t in args[1:3])
    zero = affine or (args[1] is None and args[2] is None and is_zero(x) and all(map(is_zero, vectors)))
    result(tensors_in(out)[0], labels_of(x), zero and not other_dims(labels_of(x), 1))


def _takes_statistics(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if func._schema.name in ALWAYS_STATISTICS + NEVER_STATISTICS:
        return func._schema.name in ALWAYS_STATISTICS
    position = [a.name for a in func._schema.arguments].index("training")
    return bool(args[position] if len(args) > position else kwargs.get("training", True))


def group_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """native_group_norm(x, weight, bias, N, C, HxW, groups, eps): a normalisation group goes as a whole."""
    x, weight, bias, groups = args[0], args[1], args[2], args[6]
    channel = labels_of(x)[1]
    recorder.fix_dims(x, range(2, x.dim()), "statistics are taken over what enters this group norm")
    blocks = None if channel is None else channel.reshape(groups, -1)
    if blocks is None or not recorder.follow_groups(blocks[:, 0]):
        recorder.fix(channel, "a fixed number of groups of a group norm")
        recorder.fix_all((weight, bias), "group normalisation of fixed channels")
    else:
        for column in blocks.T[1:]:
            recorder.tie(blocks[:, 0], column)
        for vector in (weight, bias):
            if vector is not None:
                recorder.meet(channel, labels_of(vector)[0])
    zero = bias is not None or (weight is None and is_zero(x))
    result(tensors_in(out)[0], labels_of(x), zero and not other_dims(labels_of(x), 1))


def layer_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x, shape = args[0], args[1]
    normalised = range(x.dim() - len(shape), x.dim())
    recorder.fix_dims(x, normalised, f"{operation(func)} mixes the channels")
    recorder.fix_all(args[2:4], f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out)[:1]:
        result(tensor, [a if d not in normalised else None for d, a in enumerate(labels_of(x))])


def weight_norm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """g · v / ‖v‖: the norm of a filter without channels is 0, and the dense net divides by it; inputs may go."""
    v, g = args[:2]
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % v.dim()
    reason = "weight normalisation divides by the norm of each filter"
    recorder.fix(labels_of(v)[dim], reason)
    recorder.fix_all(g, reason)
    if not is_zero(v):
        recorder.fix_all(v, reason)
    weight, *norms = tensors_in(out)
    result(weight, labels_of(v), True)
    for norm in norms:
        result(norm, [None] * norm.dim())
