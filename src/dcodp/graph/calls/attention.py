"""Calls of attention, whose scale PyTorch reads from a size inside."""

from __future__ import annotations

from typing import Any

from dcodp.graph.labels import labels_of
from dcodp.graph.recording import Recorder


def scaled_attention(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """Without a scale of its own it divides by √(head size), on whichever path it computes."""
    scale = args[6] if len(args) > 6 else kwargs.get("scale")
    if scale is None:
        query, key = (args[i] if len(args) > i else kwargs[name] for i, name in ((0, "query"), (1, "key")))
        for tensor in (query, key):
            recorder.fix(labels_of(tensor)[-1], "attention scales by the size of its heads")


def multi_head_attention(recorder: Recorder, args: Any, kwargs: Any, out: Any) -> None:
    """nn.MultiheadAttention computes its sizes inside: everything that enters or is projected stays as it is."""
    recorder.fix_all((args, kwargs), "the projections of a multi-head attention keep their sizes")
    recorder.fix_all(out, "the projections of a multi-head attention keep their sizes")
