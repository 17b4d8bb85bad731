"""Label rules of normalisations: vectors run in step with the channels, mixed channels are fixed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dcodp.graph.labels import (
    is_zero,
    labels_of,
    operation,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder


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
