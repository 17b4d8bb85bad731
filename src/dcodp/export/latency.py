"""How long several nets take, side by side in one run: A, B, A, B, …, so that a machine's moods meet all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one call, in milliseconds."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    n: int
    threads: int | None  # None: the callable does not say


def side_by_side(
    calls: Mapping[str, Callable[[], Any]],
    runs: int = 30,
    warmup: int = 5,
    threads: int | None = None,
    most_seconds: float = float("inf"),
) -> dict[str, Latency]:
    """Times `runs` rounds of all `calls`, each once per round, after `warmup` untimed rounds.

    `threads` is only noted. After `most_seconds` no further round starts; three are timed in any case.
    """
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: list[list[float]] = []
    start = time.perf_counter()
    while len(times) < runs and (len(times) < 3 or time.perf_counter() - start < most_seconds):
        times.append([_milliseconds(call) for call in calls.values()])
    quartiles = np.percentile(times, (25, 50, 75), axis=0).T  # [calls, 3]
    return {
        name: Latency(float(median), float(q1), float(q3), len(times), threads)
        for name, (q1, median, q3) in zip(calls, quartiles, strict=True)
    }


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
