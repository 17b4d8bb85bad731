"""How much of a net is to be kept: "flops:0.5" is half of the dense net's FLOPs."""

from __future__ import annotations

from collections.abc import Sequence

from dcodp.errors import InputError

COUNTED = ("flops", "parameters")  # what follows from the net alone
KINDS = (*COUNTED, "latency")  # what has to be measured on a machine, too


def parse_target(target: str, kinds: Sequence[str] = KINDS) -> tuple[str, float]:
    """ "flops:0.5" → ("flops", 0.5): the share of the dense net's FLOPs (parameters, latency) to keep.

    Raises InputError for another word than `kinds`, and for a share that is none.
    """
    kind, _, share = target.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if kind not in kinds or not 0 < value <= 1:
        known = " or ".join(f"{known}:0.5" for known in kinds)
        raise InputError(f"target={target} is not understood; write {known} (the share to keep)")
    return kind, value


def is_timed(target: str | None) -> bool:
    """Whether a target has to be measured on a machine; None is a ratio of the channels, which has not."""
    return target is not None and parse_target(target)[0] not in COUNTED
