"""Comparisons between fine-tuned nets that bear on the paper's claims: each a line of evidence from the records.

All APs are mAP50-95 after fine-tuning unless said otherwise; "lost" is dense minus fine-tuned, in AP points (× 100).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dcodp.report.layouts import label
from dcodp.report.query import budget_name, class_names, measure, method_name, select, setting_notes

RARE_CLASSES = ("bird", "bottle", "chair", "diningtable", "aeroplane")
BASELINES = ("slimming", "thinet", "hrank")
MINIMAL_LOSS, ACCEPTABLE_LOSS = 1.0, 5.0  # AP points
BUDGET_TOLERANCE = 0.05  # nets whose FLOPs differ by more are not of equal budget
OF_THE_METHOD = ("train.sparsity",)  # settings that a criterion asks for: they do not make two experiments unlike


@dataclass(frozen=True)
class Evidence:
    """One comparison: what it shows, whether it supports the claim, the runs it rests on, and which of the things
    that the claim requires it `covers`."""

    text: str
    supports: bool
    run_ids: tuple[str, ...]
    covers: Any = None


@dataclass(frozen=True)
class Net:
    """A fine-tuned net (all seeds of one cell) with the dense net that it came from."""

    name: str
    rows: pd.DataFrame
    dense: pd.DataFrame

    def lost(self, metric: str = "map50_95") -> float | None:
        """AP points below the dense net; negative where fine-tuning gained."""
        before, after = _points(self.dense, metric), _points(self.rows, metric)
        return None if before is None or after is None else before - after

    @property
    def first(self) -> dict[Any, Any]:
        """Any one of its rows, for what all share."""
        return self.rows.iloc[0].to_dict()

    @property
    def ratio(self) -> float:
        return float(self.first["ratio"])

    @property
    def target(self) -> str:
        return str(self.first["target"])

    @property
    def budget(self) -> str:
        """ "50 %" of the channels removed, or "FLOPs to 25 %"."""
        return budget_name(self.target, self.ratio)

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.rows["run_id"], *self.dense["run_id"]]))


def _points(rows: pd.DataFrame, metric: str) -> float | None:
    mean = measure(rows, metric).mean
    return None if mean is None else 100 * mean


def nets(frame: pd.DataFrame, low: float = 0.01, high: float = 0.99, **where: Any) -> Iterator[Net]:
    """The fine-tuned nets with a channel ratio from `low` to `high`, per detector, setting and method; those with a
    target instead of a ratio where `target` names it (or several)."""
    plain = {"aggregate": "sum", "interlayer": True, "compensate": False, "scope": "local", "target": ""}
    where = {"importance": "dcodp", **plain, **where}
    later = select(frame.loc[frame["stage"] == "finetuned"], where)
    later = later.loc[(later["target"] != "") | later["ratio"].between(low, high)]
    dense = frame.loc[frame["stage"] == "dense"]
    keys = ["model", "method", "setting", "target", "ratio"]
    groups = [g for _, g in later.groupby(keys, sort=True, dropna=False)]  # the ratio of a target is NaN
    firsts = [group.to_dict("records")[0] for group in groups]
    for first, rows, note in zip(firsts, groups, setting_notes(firsts), strict=True):
        same = dense.loc[(dense["base"] == first["base"]) & (dense["model"] == first["model"])]
        own = same.loc[same["run_id"].isin(rows["run_id"])]  # paired, seed by seed, where the records allow it
        name = f"{label('model', first['model'])}{note}, {budget_name(first['target'], first['ratio'])}"
        yield Net(name, rows, same if own.empty else own)


def lost_text(points: float) -> str:
    return f"{abs(points):.1f} points {'lost' if points >= 0 else 'gained'}"


def loses_at_most(frame: pd.DataFrame, low: float, high: float, points: float) -> Iterator[Evidence]:
    """Every net with a ratio from `low` to `high`; covers its ratio."""
    for net in nets(frame, low, high):
        if (lost := net.lost()) is not None:
            supports = round(lost, 9) <= points  # 41.0 − 40.0 is not to fail a limit of 1 by a rounding error
            yield Evidence(f"{net.name}: {lost_text(lost)}", supports, net.run_ids, net.ratio)


def minimal_loss(frame: pd.DataFrame) -> Iterator[Evidence]:
    for ratio in (0.2, 0.5):
        yield from loses_at_most(frame, ratio, ratio, MINIMAL_LOSS)


def acceptable_at_70(frame: pd.DataFrame) -> Iterator[Evidence]:
    return loses_at_most(frame, 0.7, 0.7, ACCEPTABLE_LOSS)


def kept_to_half(frame: pd.DataFrame) -> Iterator[Evidence]:
    return loses_at_most(frame, 0.1, 0.5, 0.0)


def yolov7_least_sensitive(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Against every other detector that was pruned by the same ratio; covers the other's family."""
    every = [(net, lost) for net in nets(frame, 0.1, 0.7) if (lost := net.lost()) is not None]
    for net, lost in (pair for pair in every if pair[0].first["model"] == "yolov7"):
        for other, lost_there in (pair for pair in every if pair[0].first["model"] != "yolov7"):
            if other.ratio == net.ratio:
                text = f"{net.name}: {lost_text(lost)}; {other.name}: {lost_text(lost_there)}"
                yield Evidence(text, lost <= lost_there, net.run_ids + other.run_ids, other.first["family"])


def rare_classes_lose_most(frame: pd.DataFrame) -> Iterator[Evidence]:
    for net in nets(frame, 0.2, 0.7):
        found = {name: net.lost(f"per_class/{name}/map50") for name in class_names(net.dense)}
        lost = {name: points for name, points in found.items() if points is not None}
        rare = [points for name, points in lost.items() if name in RARE_CLASSES]
        common = [points for name, points in lost.items() if name not in RARE_CLASSES]
        if rare and common:
            here, there = sum(rare) / len(rare), sum(common) / len(common)
            text = f"mean over {len(rare)} such classes {lost_text(here)}, over {len(common)} others {lost_text(there)}"
            yield Evidence(f"{net.name}: {text}", here > there, net.run_ids)


SIZES_AND_THRESHOLDS = {"ap_small": "APS", "ap_medium": "APM", "ap_large": "APL", "map50": "AP50", "ap75": "AP75"}


def larger_and_stricter_gain_more(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Covers the metric that is to gain more."""
    for net in nets(frame, 0.2, 0.5):
        for better, worse in (("ap_medium", "ap_small"), ("ap_large", "ap_small"), ("ap75", "map50")):
            a, b = net.lost(better), net.lost(worse)
            if a is not None and b is not None:
                names = SIZES_AND_THRESHOLDS[better], SIZES_AND_THRESHOLDS[worse]
                text = f"{net.name}: {names[0]} {lost_text(a)}, {names[1]} {lost_text(b)}"
                yield Evidence(text, a <= b, net.run_ids, better)


def beats_baselines(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Nets of the same detector and setting, at equal ratio and at matched FLOPs; covers the baseline."""
    targets = sorted(set(frame["target"]))
    ours = list(nets(frame, target=targets))
    for baseline in BASELINES:
        every = [nets(frame, importance=baseline, interlayer=coupled, target=targets) for coupled in (True, False)]
        for net, other in itertools.product(ours, itertools.chain.from_iterable(every)):
            if _comparable(net, other) and (basis := _equal_budget(net, other)):
                yield _compare(net, other, baseline, basis)


def _comparable(a: Net, b: Net) -> bool:
    return a.first["model"] == b.first["model"] and _shared_setting(a) == _shared_setting(b)


def _shared_setting(net: Net) -> dict[str, Any]:
    return {key: value for key, value in net.first["setting_of"].items() if key not in OF_THE_METHOD}


def _equal_budget(a: Net, b: Net) -> str:
    """In what respect two nets are of equal budget: "at equal ratio", "at matched FLOPs", or "" where they are not.

    Nets with a target are compared with each other, likewise nets with a ratio. Either way their FLOPs must agree.
    """
    first, second = measure(a.rows, "flops").mean, measure(b.rows, "flops").mean
    if a.target != b.target or first is None or second is None:
        return ""
    if abs(first - second) > BUDGET_TOLERANCE * max(first, second):
        return ""
    return "at equal ratio" if a.ratio == b.ratio else "at matched FLOPs"


def _compare(net: Net, other: Net, covers: str, basis: str = "") -> Evidence:
    """The AP of one net above the other's, with the seeds' spread where it is known; `basis` says what is equal."""
    ours, theirs = measure(net.rows, "map50_95"), measure(other.rows, "map50_95")
    name, runs = ", ".join(filter(None, (net.name, basis))), net.run_ids + other.run_ids
    method = " ".join(filter(None, (method_name(other.first), _own_dense_net(other), f"at {other.budget}")))
    if ours.mean is None or theirs.mean is None:
        return Evidence(f"{name}: no AP to compare with {method}", False, runs, covers)
    gap, noise = ours.mean - theirs.mean, max(ours.spread or 0.0, theirs.spread or 0.0)
    tie = " (within the spread of the seeds)" if abs(gap) < noise else ""
    text = f"{name}: {100 * ours.mean:.1f} against {100 * theirs.mean:.1f} of {method}{tie}"
    return Evidence(text, gap > 0, runs, covers)


def _own_dense_net(net: Net) -> str:
    """How the net's dense net was trained for its method: "(its dense net trained with train.sparsity=0.0001)"."""
    asked = [f"{key}={value}" for key in OF_THE_METHOD if (value := net.first["base_of"].get(key))]
    return f"(its dense net trained with {', '.join(asked)})" if asked else ""


def coupling_helps(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Each criterion with and without coupling, at the same ratio; covers the criterion."""
    for criterion in (*BASELINES, "dcodp"):
        alone = list(nets(frame, importance=criterion, interlayer=False))
        for net in nets(frame, importance=criterion):
            for other in alone:
                if other.ratio == net.ratio and _comparable(net, other):
                    yield from _compare_sizes(net, other, criterion)


def _compare_sizes(net: Net, other: Net, covers: str) -> Iterator[Evidence]:
    sizes = measure(net.rows, "parameters").mean, measure(other.rows, "parameters").mean
    if sizes[0] is not None and sizes[1] is not None:
        shown = _compare(net, other, covers)
        text = f"{shown.text}, {sizes[0] / 1e6:.2f} M against {sizes[1] / 1e6:.2f} M parameters"
        yield Evidence(text, shown.supports and sizes[0] <= sizes[1], shown.run_ids, covers)
