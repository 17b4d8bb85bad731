"""Comparisons between pruned nets that bear on claims: each a line of evidence from the records.

A comparison is given the rows of one data set, `of` (which nets the claim is about: {field: value}, the stage among
them) and the parameters that claims.yaml declares. APs are mAP50-95 unless said otherwise; "lost" is dense minus
pruned, in AP points (× 100); `ratios`: [lowest, highest], both included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dcodp.report.labels import label
from dcodp.report.methods import OF_THE_METHOD, budget_name, method_name
from dcodp.report.query import class_names, measure, select, setting_notes

Where = Mapping[str, Any]
ANY_RATIO = (0.01, 0.99)


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
    """A pruned net (all seeds of one cell) with the dense net that it came from."""

    name: str
    rows: pd.DataFrame
    dense: pd.DataFrame

    def lost(self, metric: str = "map50_95") -> float | None:
        """AP points below the dense net; negative where it gained."""
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


def nets(frame: pd.DataFrame, of: Where, ratios: Sequence[float] = ANY_RATIO) -> Iterator[Net]:
    """The nets of that kind with a channel ratio from the first to the second of `ratios`, per detector, setting and
    method; those with a target instead of a ratio where `of` names it (or several)."""
    later, (low, high) = select(frame, of), ratios
    later = later.loc[(later["target"] != "") | later["ratio"].between(low, high)]
    dense = frame.loc[frame["stage"] == "dense"]
    keys = ["model", "method", "setting", "base", "target", "ratio"]
    groups = [g for _, g in later.groupby(keys, sort=True, dropna=False)]  # the ratio of a target is NaN
    firsts = [group.to_dict("records")[0] for group in groups]
    for first, rows, note in zip(firsts, groups, setting_notes(firsts), strict=True):
        same = dense.loc[(dense["base"] == first["base"]) & (dense["model"] == first["model"])]
        own = same.loc[same["run_id"].isin(rows["run_id"])]  # paired, seed by seed, where the records allow it
        name = f"{label('model', first['model'])}{note}, {budget_name(first['target'], first['ratio'])}"
        yield Net(name, rows, same if own.empty else own)


def lost_text(points: float) -> str:
    return f"{abs(points):.1f} points {'lost' if points >= 0 else 'gained'}"


def loses_at_most(
    frame: pd.DataFrame, of: Where, ratios: Sequence[Sequence[float]], points: float
) -> Iterator[Evidence]:
    """Every net with a ratio within one of `ratios`; covers its ratio."""
    for net in itertools.chain.from_iterable(nets(frame, of, within) for within in ratios):
        if (lost := net.lost()) is not None:
            supports = round(lost, 9) <= points  # 41.0 − 40.0 is not to fail a limit of 1 by a rounding error
            yield Evidence(f"{net.name}: {lost_text(lost)}", supports, net.run_ids, net.ratio)


def least_sensitive(frame: pd.DataFrame, of: Where, model: str, ratios: Sequence[float]) -> Iterator[Evidence]:
    """`model` against every other detector that was pruned by the same ratio; covers the other's family."""
    every = [(net, lost) for net in nets(frame, of, ratios) if (lost := net.lost()) is not None]
    for net, lost in (pair for pair in every if pair[0].first["model"] == model):
        for other, lost_there in (pair for pair in every if pair[0].first["model"] != model):
            if other.ratio == net.ratio:
                text = f"{net.name}: {lost_text(lost)}; {other.name}: {lost_text(lost_there)}"
                yield Evidence(text, lost <= lost_there, net.run_ids + other.run_ids, other.first["family"])


def classes_lose_most(
    frame: pd.DataFrame, of: Where, classes: Sequence[str], ratios: Sequence[float]
) -> Iterator[Evidence]:
    """The mean loss in AP50 over `classes` against that over the others; classes without objects are left out."""
    for net in nets(frame, of, ratios):
        found = {name: net.lost(f"per_class/{name}/map50") for name in class_names(net.dense)}
        lost = {name: points for name, points in found.items() if points is not None}
        these = [points for name, points in lost.items() if name in classes]
        others = [points for name, points in lost.items() if name not in classes]
        if these and others:
            here, there = sum(these) / len(these), sum(others) / len(others)
            text = (
                f"mean over {len(these)} such classes {lost_text(here)}, over {len(others)} others {lost_text(there)}"
            )
            yield Evidence(f"{net.name}: {text}", here > there, net.run_ids)


def loses_less(
    frame: pd.DataFrame, of: Where, pairs: Sequence[Sequence[str]], ratios: Sequence[float]
) -> Iterator[Evidence]:
    """Each pair of metrics: the first loses no more than the second; covers the first."""
    for net in nets(frame, of, ratios):
        for better, worse in pairs:
            a, b = net.lost(better), net.lost(worse)
            if a is not None and b is not None:
                text = f"{label('metric', better)} {lost_text(a)}, {label('metric', worse)} {lost_text(b)}"
                yield Evidence(f"{net.name}: {text}", a <= b, net.run_ids, better)


def beats(frame: pd.DataFrame, of: Where, others: Sequence[str], percent: float) -> Iterator[Evidence]:
    """Against `others` (criteria), coupled or not, nets of the same detector and setting at equal ratio and at matched
    FLOPs, which differ by at most `percent`; covers the criterion."""
    budgets = {"target": sorted(set(frame["target"]))}
    ours = list(nets(frame, {**of, **budgets}))
    for criterion in others:
        kinds = [{**of, **budgets, "importance": criterion, "interlayer": coupled} for coupled in (True, False)]
        theirs = list(itertools.chain.from_iterable(nets(frame, kind) for kind in kinds))
        for net, other in itertools.product(ours, theirs):
            if _comparable(net, other) and (basis := _equal_budget(net, other, percent / 100)):
                yield _compare(net, other, criterion, basis)


def _comparable(a: Net, b: Net) -> bool:
    """Whether they differ in method alone; how a criterion asks for the dense net to be trained is part of it."""
    return a.first["model"] == b.first["model"] and a.first["setting"] == b.first["setting"]


def _equal_budget(a: Net, b: Net, tolerance: float) -> str:
    """In what respect two nets are of equal budget: "at equal ratio", "at matched FLOPs", or "" where they are not.

    Nets with a target are compared with each other, likewise nets with a ratio. Either way their FLOPs must agree.
    """
    first, second = measure(a.rows, "flops").mean, measure(b.rows, "flops").mean
    if a.target != b.target or first is None or second is None:
        return ""
    if abs(first - second) > tolerance * max(first, second):
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


def coupling_helps(frame: pd.DataFrame, of: Where, criteria: Sequence[str]) -> Iterator[Evidence]:
    """Each criterion with and without coupling, at the same ratio; covers the criterion."""
    for criterion in criteria:
        alone = list(nets(frame, {**of, "importance": criterion, "interlayer": False}))
        for net in nets(frame, {**of, "importance": criterion}):
            for other in alone:
                if other.ratio == net.ratio and _comparable(net, other):
                    yield from _compare_sizes(net, other, criterion)


def _compare_sizes(net: Net, other: Net, covers: str) -> Iterator[Evidence]:
    sizes = measure(net.rows, "parameters").mean, measure(other.rows, "parameters").mean
    if sizes[0] is not None and sizes[1] is not None:
        shown = _compare(net, other, covers)
        text = f"{shown.text}, {sizes[0] / 1e6:.2f} M against {sizes[1] / 1e6:.2f} M parameters"
        yield Evidence(text, shown.supports and sizes[0] <= sizes[1], shown.run_ids, covers)


COMPARISONS: dict[str, Callable[..., Iterator[Evidence]]] = {
    "loses_at_most": loses_at_most,
    "least_sensitive": least_sensitive,
    "classes_lose_most": classes_lose_most,
    "loses_less": loses_less,
    "beats": beats,
    "coupling_helps": coupling_helps,
}
