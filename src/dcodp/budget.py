"""How a budget is written: the share of the dense net's FLOPs or parameters that pruning keeps. Needs no torch."""

from __future__ import annotations

from dcodp.errors import InputError


def parse_target(target: str) -> tuple[str, float]:
    """ "flops:0.5" → ("flops", 0.5): the share of the dense net's FLOPs (or parameters) to keep."""
    kind, _, share = target.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if kind not in ("flops", "parameters") or not 0 < value <= 1:
        raise InputError(f"target={target} is not understood; write flops:0.5 or parameters:0.5 (the share to keep)")
    return kind, value
