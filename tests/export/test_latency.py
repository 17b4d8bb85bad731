"""Callables are timed in turns. The clock here is made up."""

import time

import pytest

from dcodp.export import side_by_side


class Clock:
    """Stands still but for what calls take."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def taking(self, *milliseconds):
        left = iter(milliseconds)

        def call():
            self.now += next(left) / 1e3

        return call


def test_callables_take_turns_after_the_warm_up():
    calls = []
    found = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 4, 2, threads=3)
    assert calls == ["a", "b"] * 6 and list(found) == ["a", "b"]
    assert all(latency.n == 4 and latency.threads == 3 for latency in found.values())


def test_medians_and_quartiles_are_in_milliseconds(monkeypatch):
    clock = Clock(monkeypatch)
    found = side_by_side({"a": clock.taking(99, 1, 2, 3, 4, 5), "b": clock.taking(99, 50, 10, 30, 20, 40)}, 5, 1)
    assert (found["a"].q1_ms, found["a"].median_ms, found["a"].q3_ms) == pytest.approx((2, 3, 4))
    assert found["b"].median_ms == pytest.approx(30)


def test_no_round_starts_after_the_time_is_up(monkeypatch):
    clock = Clock(monkeypatch)
    assert side_by_side({"a": clock.taking(*[10.0] * 9)}, 9, 0, most_seconds=0.045)["a"].n == 5
    assert side_by_side({"a": clock.taking(*[10.0] * 9)}, 9, 0, most_seconds=0.0)["a"].n == 3
