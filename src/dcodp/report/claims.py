"""The paper's claims, each put as a test that records can pass or fail, and judged per data set.

The thresholds are ours, since the paper gives words ("minimal", "acceptable"); they stand in each claim's `test`.
All APs are mAP50-95 after fine-tuning unless a test says otherwise; "lost" is dense minus fine-tuned, in AP points
(× 100). A claim holds on a data set if it does so for every detector measured there, and fails if it fails for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from dcodp.errors import InputError
from dcodp.report.layouts import label
from dcodp.report.query import budget_name, differences, measure, method_name, select

HOLDS, FAILS, NOT_MEASURED = "holds", "fails", "not measured"
PAPER_DATASETS = ("voc2007", "voc2012", "coco2017")
RARE_CLASSES = ("bird", "bottle", "chair", "diningtable", "aeroplane")
BASELINES = ("slimming", "thinet", "hrank")
MINIMAL_LOSS, ACCEPTABLE_LOSS = 1.0, 5.0  # AP points
BUDGET_TOLERANCE = 0.05  # nets whose FLOPs differ by more are not of equal budget


@dataclass(frozen=True)
class Evidence:
    """One comparison: what it shows, whether it supports the claim, and the runs it rests on."""

    text: str
    supports: bool
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    claim: str
    dataset: str
    verdict: str  # HOLDS, FAILS or NOT_MEASURED
    evidence: tuple[Evidence, ...]

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run_id for item in self.evidence for run_id in item.run_ids))


@dataclass(frozen=True)
class Claim:
    """`judge`: rows of one data set → the comparisons that can be made of them."""

    name: str
    statement: str
    test: str
    judge: Callable[[pd.DataFrame], Iterable[Evidence]]


@dataclass(frozen=True)
class Net:
    """A fine-tuned net (all seeds of one cell) with the dense net that it came from."""

    name: str
    rows: pd.DataFrame
    dense: pd.DataFrame

    def ap(self, metric: str = "map50_95") -> float | None:
        """AP × 100 after fine-tuning, None where not measured."""
        return _points(self.rows, metric)

    def lost(self, metric: str = "map50_95") -> float | None:
        """AP points below the dense net; negative where fine-tuning gained."""
        before, after = _points(self.dense, metric), _points(self.rows, metric)
        return None if before is None or after is None else before - after

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.rows["run_id"], *self.dense["run_id"]]))


def _points(rows: pd.DataFrame, metric: str) -> float | None:
    mean = measure(rows, metric).mean
    return None if mean is None else 100 * mean


def nets(frame: pd.DataFrame, low: float, high: float, **where: object) -> Iterator[Net]:
    """The fine-tuned nets with a channel ratio from `low` to `high`, per detector, setting and method."""
    where = {"importance": "dcodp", "interlayer": True, "compensate": False, "target": "", **where}
    later = select(frame.loc[frame["stage"] == "finetuned"], where)
    later = later.loc[(later["ratio"] >= low) & (later["ratio"] <= high)]
    dense = frame.loc[frame["stage"] == "dense"]
    groups = [g for _, g in later.groupby(["model", "method", "setting", "ratio"], sort=True)]
    firsts = [group.to_dict("records")[0] for group in groups]
    notes = dict(zip((f["setting"] for f in firsts), _notes(firsts), strict=True))
    for first, rows in zip(firsts, groups, strict=True):
        own = dense.loc[(dense["base"] == first["base"]) & (dense["model"] == first["model"])]
        name = f"{label('model', first['model'])}{notes[first['setting']]}, {budget_name('', first['ratio'])}"
        yield Net(name, rows, own)


def _notes(firsts: Sequence[dict]) -> list[str]:
    """What tells the settings of one detector apart, where it has several."""
    texts = []
    for first in firsts:
        own = {f["setting"]: f["setting_of"] for f in firsts if f["model"] == first["model"]}
        texts.append(dict(zip(own, differences(list(own.values())), strict=True))[first["setting"]])
    return [f" [{text}]" if text else "" for text in texts]


def _loses_at_most(frame: pd.DataFrame, ratios: Iterable[float], points: float) -> Iterator[Evidence]:
    for ratio in ratios:
        for net in nets(frame, ratio, ratio):
            if (lost := net.lost()) is not None:
                yield Evidence(f"{net.name}: {_lost(lost)}", round(lost, 9) <= points, net.run_ids)


def _lost(points: float) -> str:
    return f"{abs(points):.1f} points {'lost' if points >= 0 else 'gained'}"


def minimal_loss(frame: pd.DataFrame) -> Iterator[Evidence]:
    return _loses_at_most(frame, (0.2, 0.5), MINIMAL_LOSS)


def acceptable_at_70(frame: pd.DataFrame) -> Iterator[Evidence]:
    return _loses_at_most(frame, (0.7,), ACCEPTABLE_LOSS)


def kept_to_half(frame: pd.DataFrame) -> Iterator[Evidence]:
    for net in nets(frame, 0.1, 0.5):
        if (lost := net.lost()) is not None:
            yield Evidence(f"{net.name}: {_lost(lost)}", round(lost, 9) <= 0, net.run_ids)


def yolov7_least_sensitive(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Against every other detector that was pruned by the same ratio."""
    every = [(net, lost) for net in nets(frame, 0.1, 0.7) if (lost := net.lost()) is not None]
    for ratio in sorted({net.rows.iloc[0]["ratio"] for net, _ in every}):
        here = [(net, lost) for net, lost in every if net.rows.iloc[0]["ratio"] == ratio]
        ours = [pair for pair in here if pair[0].rows.iloc[0]["model"] == "yolov7"]
        others = [pair for pair in here if pair[0].rows.iloc[0]["model"] != "yolov7"]
        for (net, lost), (other, lost_there) in ((a, b) for a in ours for b in others):
            text = f"{net.name}: {_lost(lost)}; {other.name}: {_lost(lost_there)}"
            yield Evidence(text, lost <= lost_there, net.run_ids + other.run_ids)


def rare_classes_lose_most(frame: pd.DataFrame) -> Iterator[Evidence]:
    for net in nets(frame, 0.2, 0.7):
        names = dict.fromkeys(name for row in net.dense["per_class"] for name in row)
        lost = {name: net.lost(f"per_class/{name}/map50") for name in names}
        rare = [v for name, v in lost.items() if name in RARE_CLASSES and v is not None]
        common = [v for name, v in lost.items() if name not in RARE_CLASSES and v is not None]
        if rare and common:
            here, there = sum(rare) / len(rare), sum(common) / len(common)
            text = f"{net.name}: mean over {len(rare)} such classes {_lost(here)}, over {len(common)} others {_lost(there)}"
            yield Evidence(text, here > there, net.run_ids)


def larger_and_stricter_gain_more(frame: pd.DataFrame) -> Iterator[Evidence]:
    for net in nets(frame, 0.2, 0.5):
        lost = {metric: net.lost(metric) for metric in ("ap_small", "ap_medium", "ap_large", "map50", "ap75")}
        for less, more in (("ap_medium", "ap_small"), ("ap_large", "ap_small"), ("ap75", "map50")):
            a, b = lost[less], lost[more]
            if a is not None and b is not None:
                names = {
                    "ap_small": "small",
                    "ap_medium": "medium",
                    "ap_large": "large",
                    "map50": "AP50",
                    "ap75": "AP75",
                }
                text = f"{net.name}: {names[less]} {_lost(a)}, {names[more]} {_lost(b)}"
                yield Evidence(text, a <= b, net.run_ids)


def beats_baselines(frame: pd.DataFrame) -> Iterator[Evidence]:
    """Nets of the same detector and setting whose FLOPs agree within BUDGET_TOLERANCE."""
    for net in nets(frame, 0.01, 0.99):
        for baseline in BASELINES:
            for interlayer in (True, False):
                for other in nets(frame, 0.01, 0.99, importance=baseline, interlayer=interlayer):
                    if _comparable(net, other) and _equal_budget(net, other):
                        yield _compare(net, other)


def _comparable(a: Net, b: Net) -> bool:
    return all(a.rows.iloc[0][key] == b.rows.iloc[0][key] for key in ("model", "setting"))


def _equal_budget(a: Net, b: Net) -> bool:
    first, second = measure(a.rows, "flops").mean, measure(b.rows, "flops").mean
    return bool(first and second) and abs(first - second) <= BUDGET_TOLERANCE * max(first, second)


def _compare(net: Net, other: Net) -> Evidence:
    """The AP of one net above the other's, with the seeds' spread where it is known."""
    ours, theirs = measure(net.rows, "map50_95"), measure(other.rows, "map50_95")
    method = method_name(other.rows.iloc[0].to_dict())
    if ours.mean is None or theirs.mean is None:
        return Evidence(f"{net.name}: no AP to compare with {method}", False, net.run_ids + other.run_ids)
    gap = 100 * (ours.mean - theirs.mean)
    noise = 100 * max(ours.spread or 0.0, theirs.spread or 0.0)
    tie = " (within the spread of the seeds)" if abs(gap) < noise else ""
    text = f"{net.name}: {100 * ours.mean:.1f} against {100 * theirs.mean:.1f} of {method}{tie}"
    return Evidence(text, gap > 0, net.run_ids + other.run_ids)


def coupling_helps(frame: pd.DataFrame) -> Iterator[Evidence]:
    for baseline in (*BASELINES, "dcodp"):
        for net in nets(frame, 0.01, 0.99, importance=baseline):
            for alone in nets(frame, 0.01, 0.99, importance=baseline, interlayer=False):
                same = alone.rows.iloc[0]["ratio"] == net.rows.iloc[0]["ratio"] and _comparable(net, alone)
                sizes = measure(net.rows, "parameters").mean, measure(alone.rows, "parameters").mean
                if same and sizes[0] is not None and sizes[1] is not None:
                    shown = _compare(net, alone)
                    text = f"{shown.text}, {sizes[0] / 1e6:.2f} M against {sizes[1] / 1e6:.2f} M parameters"
                    yield Evidence(text, shown.supports and sizes[0] <= sizes[1], shown.run_ids)


CLAIMS = (
    Claim(
        "minimal_loss",
        "The loss is minimal at 20 and 50 %.",
        f"At most {MINIMAL_LOSS:g} point lost at each of the two ratios.",
        minimal_loss,
    ),
    Claim(
        "acceptable_at_70",
        "The loss is acceptable at 70 %.",
        f"At most {ACCEPTABLE_LOSS:g} points lost at 70 %.",
        acceptable_at_70,
    ),
    Claim(
        "kept_to_half",
        "Removing 10 to 50 % improves or keeps mAP.",
        "Nothing lost at any measured ratio from 10 to 50 %.",
        kept_to_half,
    ),
    Claim(
        "yolov7_least_sensitive",
        "YOLOv7 is the least sensitive detector.",
        "YOLOv7 loses no more than each other detector at the same ratio.",
        yolov7_least_sensitive,
    ),
    Claim(
        "rare_classes_lose_most",
        f"Small and rare classes ({', '.join(RARE_CLASSES)}) lose most.",
        "At 20 to 70 %, their mean loss in AP50 exceeds that of the other classes; classes without objects are left out.",
        rare_classes_lose_most,
    ),
    Claim(
        "larger_and_stricter_gain_more",
        "Gains are larger for medium and large objects and at high IoU thresholds.",
        "At 20 to 50 %, APM and APL lose no more than APS, and AP75 no more than AP50.",
        larger_and_stricter_gain_more,
    ),
    Claim(
        "beats_baselines",
        "DCODP beats Slimming, ThiNet and HRank at equal budget.",
        f"A higher AP than each, coupled or not, where FLOPs differ by at most {100 * BUDGET_TOLERANCE:g} %.",
        beats_baselines,
    ),
    Claim(
        "coupling_helps",
        "Inter-layer coupling helps each criterion.",
        "At the same ratio, a higher AP with coupling than without, with no more parameters.",
        coupling_helps,
    ),
)
BY_NAME = {claim.name: claim for claim in CLAIMS}


def judge(frame: pd.DataFrame) -> list[Verdict]:
    """Every claim on each of the paper's data sets and on whatever else was measured."""
    datasets = [*PAPER_DATASETS, *sorted(set(frame["dataset"]) - set(PAPER_DATASETS))]
    return [
        judge_one(claim, frame.loc[frame["dataset"] == dataset], dataset) for claim in CLAIMS for dataset in datasets
    ]


def judge_one(claim: Claim, rows: pd.DataFrame, dataset: str) -> Verdict:
    """rows: those of `dataset`."""
    evidence = tuple(claim.judge(rows)) if len(rows) else ()
    if not evidence:
        return Verdict(claim.name, dataset, NOT_MEASURED, ())
    return Verdict(claim.name, dataset, HOLDS if all(item.supports for item in evidence) else FAILS, evidence)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises InputError for a claim that does not exist."""
    for name in names:
        if name not in BY_NAME:
            raise InputError(f"{where}: claim {name} is not known; use {', '.join(BY_NAME)}")
