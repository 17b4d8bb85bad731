"""Label rules that put tensors together, and the fixed shuffles of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dcodp.graph.labels import (
    FIXED,
    is_zero,
    labels_of,
    result,
)
from dcodp.graph.recording import Recorder


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
            recorder.tie(blocks[:, 0], column)
        channel = blocks[:, 0]
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def pixel_unshuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, factor = args[:2]
    axes = labels_of(x)
    channel = None if axes[-3] is None else np.repeat(axes[-3], factor * factor)
    result(out, [*axes[:-3], channel, None, None], is_zero(x))


def gated(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    """glu: the halves of a dimension are multiplied, so they lose the same positions."""
    x = args[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", -1)) % x.dim()
    axes = list(labels_of(x))
    labels = axes[dim]
    if labels is not None:
        one, other = np.split(labels, 2)
        recorder.tie(one, other)
        axes[dim] = one
    result(out, axes, is_zero(x))


def channel_shuffle(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
    x, groups = args[:2]
    axes = list(labels_of(x))
    if axes[1] is not None:
        rows = np.reshape(axes[1], (groups, -1))
        for row in rows[1:]:
            recorder.tie(rows[0], row)
        axes[1] = rows.T.flatten()
    result(out, axes, is_zero(x))
