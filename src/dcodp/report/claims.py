"""The paper's claims, declared in claims.yaml, judged per data set.

A claim fails on a data set if one comparison there speaks against it; it holds if none does and everything that it
requires was measured; otherwise it is not measured, whatever part of the evidence there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pandas as pd

from dcodp.errors import InputError
from dcodp.report.comparisons import COMPARISONS, Evidence
from dcodp.report.labels import BESIDE, label, read_yaml
from dcodp.report.methods import DEFAULTS

HOLDS, FAILS, NOT_MEASURED = "holds", "fails", "not measured"


@dataclass(frozen=True)
class Claim:
    """`judge`: rows of one data set → the comparisons that can be made of them; `requires`: what they must cover,
    values of the field `required` ("ratio", "family", …)."""

    name: str
    statement: str
    test: str
    judge: Callable[[pd.DataFrame], Iterable[Evidence]]
    required: str = ""
    requires: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    dataset: str
    verdict: str  # HOLDS, FAILS or NOT_MEASURED
    evidence: tuple[Evidence, ...]
    lacking: tuple[Any, ...] = ()  # what the claim requires and no comparison covers

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run_id for item in self.evidence for run_id in item.run_ids))

    @property
    def still_to_measure(self) -> str:
        """ "20 %, 50 %", or "Slimming, HRank"."""
        return ", ".join(label(self.claim.required, thing) for thing in self.lacking)


@cache
def _declared() -> Mapping[str, Any]:
    return read_yaml(BESIDE / "claims.yaml")


@cache
def all_claims() -> dict[str, Claim]:
    """By name, in the order of the file."""
    return {name: _claim(name, told) for name, told in _declared()["claims"].items()}


def _claim(name: str, told: Mapping[str, Any]) -> Claim:
    given = told.get("with", {})
    shown = {key: ", ".join(map(str, v)) if isinstance(v, list) else v for key, v in given.items()}
    judge = partial(COMPARISONS[told["compare"]], of={"stage": _declared()["stage"], **paper_method()}, **given)
    required, values = next(iter(told.get("require", {}).items()), ("", ()))
    return Claim(name, told["statement"].format(**shown), told["test"].format(**shown), judge, required, tuple(values))


def paper_method() -> dict[str, Any]:
    """The method that the claims are about, but for how much it removes: {"importance": "dcodp", …, "target": ""}."""
    plain = {field: value for field, value in DEFAULTS.items() if field != "ratio"}
    return {**plain, **_declared()["method"]}


def judge(frame: pd.DataFrame) -> list[Verdict]:
    """Every claim on each of the paper's data sets and on whatever else was measured."""
    papers = _declared()["datasets"]
    datasets = [*papers, *sorted(set(frame["dataset"]) - set(papers))]
    parts = {dataset: frame.loc[frame["dataset"] == dataset] for dataset in datasets}
    return [judge_one(claim, rows, dataset) for claim in all_claims().values() for dataset, rows in parts.items()]


def judge_one(claim: Claim, rows: pd.DataFrame, dataset: str) -> Verdict:
    """rows: those of `dataset`."""
    evidence = tuple(claim.judge(rows)) if len(rows) else ()
    covered = {item.covers for item in evidence}
    lacking = tuple(thing for thing in claim.requires if thing not in covered)
    if not all(item.supports for item in evidence):
        return Verdict(claim, dataset, FAILS, evidence, lacking)
    return Verdict(claim, dataset, HOLDS if evidence and not lacking else NOT_MEASURED, evidence, lacking)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises InputError for a claim that does not exist."""
    for name in names:
        if name not in all_claims():
            raise InputError(f"{where}: claim {name} is not known; use {', '.join(all_claims())}")
