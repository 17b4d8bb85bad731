"""The paper's claims, each put as a test that records can pass or fail, and judged per data set.

The thresholds are ours, since the paper gives words ("minimal", "acceptable"); they stand in each claim's `test`.
A claim fails on a data set if one comparison there speaks against it; it holds if none does and everything that it
requires was measured; otherwise it is not measured, whatever part of the evidence there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dcodp.errors import InputError
from dcodp.report import comparisons
from dcodp.report.comparisons import ACCEPTABLE_LOSS, BASELINES, BUDGET_TOLERANCE, MINIMAL_LOSS, RARE_CLASSES, Evidence

HOLDS, FAILS, NOT_MEASURED = "holds", "fails", "not measured"
PAPER_DATASETS = ("voc2007", "voc2012", "coco2017")


@dataclass(frozen=True)
class Claim:
    """`judge`: rows of one data set → the comparisons that can be made of them; `requires`: what they must cover."""

    name: str
    statement: str
    test: str
    judge: Callable[[pd.DataFrame], Iterable[Evidence]]
    requires: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Verdict:
    claim: str
    dataset: str
    verdict: str  # HOLDS, FAILS or NOT_MEASURED
    evidence: tuple[Evidence, ...]
    lacking: tuple[Any, ...] = ()  # what the claim requires and no comparison covers

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run_id for item in self.evidence for run_id in item.run_ids))


CLAIMS = (
    Claim(
        "minimal_loss",
        "The loss is minimal at 20 and 50 %.",
        f"At most {MINIMAL_LOSS:g} point lost at each of the two ratios.",
        comparisons.minimal_loss,
        (0.2, 0.5),
    ),
    Claim(
        "acceptable_at_70",
        "The loss is acceptable at 70 %.",
        f"At most {ACCEPTABLE_LOSS:g} points lost at 70 %.",
        comparisons.acceptable_at_70,
        (0.7,),
    ),
    Claim(
        "kept_to_half",
        "Removing 10 to 50 % improves or keeps mAP.",
        "Nothing lost at any measured ratio from 10 to 50 %, both ends among them.",
        comparisons.kept_to_half,
        (0.1, 0.5),
    ),
    Claim(
        "yolov7_least_sensitive",
        "YOLOv7 is the least sensitive detector.",
        "YOLOv7 loses no more than YOLOv8 and Faster R-CNN at every ratio that they share.",
        comparisons.yolov7_least_sensitive,
        ("yolov8", "faster_rcnn"),
    ),
    Claim(
        "rare_classes_lose_most",
        f"Small and rare classes ({', '.join(RARE_CLASSES)}) lose most.",
        "At 20 to 70 % their mean loss in AP50 exceeds the other classes'; classes without objects are left out.",
        comparisons.rare_classes_lose_most,
    ),
    Claim(
        "larger_and_stricter_gain_more",
        "Gains are larger for medium and large objects and at high IoU thresholds.",
        "At 20 to 50 % APM and APL lose no more than APS, and AP75 no more than AP50.",
        comparisons.larger_and_stricter_gain_more,
        ("ap_medium", "ap_large", "ap75"),
    ),
    Claim(
        "beats_baselines",
        "DCODP beats Slimming, ThiNet and HRank at equal budget.",
        f"A higher AP than each, coupled or not, at equal ratio and at matched FLOPs, where FLOPs differ by at most "
        f"{100 * BUDGET_TOLERANCE:g} %.",
        comparisons.beats_baselines,
        BASELINES,
    ),
    Claim(
        "coupling_helps",
        "Inter-layer coupling helps each criterion.",
        "At the same ratio, a higher AP with coupling than without, with no more parameters.",
        comparisons.coupling_helps,
        BASELINES,
    ),
)
BY_NAME = {claim.name: claim for claim in CLAIMS}


def judge(frame: pd.DataFrame) -> list[Verdict]:
    """Every claim on each of the paper's data sets and on whatever else was measured."""
    datasets = [*PAPER_DATASETS, *sorted(set(frame["dataset"]) - set(PAPER_DATASETS))]
    parts = {dataset: frame.loc[frame["dataset"] == dataset] for dataset in datasets}
    return [judge_one(claim, rows, dataset) for claim in CLAIMS for dataset, rows in parts.items()]


def judge_one(claim: Claim, rows: pd.DataFrame, dataset: str) -> Verdict:
    """rows: those of `dataset`."""
    evidence = tuple(claim.judge(rows)) if len(rows) else ()
    covered = {item.covers for item in evidence}
    lacking = tuple(thing for thing in claim.requires if thing not in covered)
    if not all(item.supports for item in evidence):
        return Verdict(claim.name, dataset, FAILS, evidence, lacking)
    return Verdict(claim.name, dataset, HOLDS if evidence and not lacking else NOT_MEASURED, evidence, lacking)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises InputError for a claim that does not exist."""
    for name in names:
        if name not in BY_NAME:
            raise InputError(f"{where}: claim {name} is not known; use {', '.join(BY_NAME)}")
