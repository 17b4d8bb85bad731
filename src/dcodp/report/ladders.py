"""The ladders: what is left of the dense net's accuracy after each stage, one row per budget and method.

Stages are those of the records, in their order and whatever they are called; of a method of several steps each counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dcodp.records import Record
from dcodp.report.labels import heading, label
from dcodp.report.layouts import COLUMNS, Column
from dcodp.report.methods import METHOD
from dcodp.report.notes import footnotes
from dcodp.report.query import MISSING, Measurement, measure, measurements
from dcodp.report.tables import ABSENT, Row, Table, subjects, unmixed

METRIC = COLUMNS["map50_95"]
COST = COLUMNS["flops_removed"]
STEP = ", step "


def ladders(records: Iterable[Record]) -> list[Table]:
    """One table for each data set, detector and setting of which a net was pruned."""
    frame = measurements(records, rungs_of)
    tables = [_ladder(name, title, before, after) for name, title, before, after in subjects(frame) if len(after)]
    return [table for table in tables if table.rows]


def rungs_of(record: Record) -> dict[str, Mapping[str, Any]]:
    """{rung: evaluation block}: the stages, those that come again by their step: "pruned", …, "pruned, step 2"."""
    return dict(zip(numbered([str(stage["name"]) for stage in record.stages]), record.stages, strict=True))


def numbered(names: Sequence[str]) -> list[str]:
    """["a", "b", "a"] → ["a", "b", "a, step 2"]."""
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if count == 1 else f"{name}{STEP}{count}" for name, count in zip(names, counts, strict=True)]


def merged(orders: Iterable[Sequence[str]]) -> list[str]:
    """All names, each after the one that it follows where it first stands."""
    every: list[str] = []
    for order in orders:
        for i, name in enumerate(order):
            if name not in every:
                every.insert(every.index(order[i - 1]) + 1 if i else 0, name)
    return every


def _ladder(name: str, title: str, before: pd.DataFrame, after: pd.DataFrame) -> Table:
    methods = [group for _, group in after.groupby(["target", "ratio", *_HOW], sort=True, dropna=False)]
    found = [run["stage"].tolist() for _, run in after.groupby("run_id", sort=False)]
    rungs = ["dense", *merged([*found, *map(_asked, methods)])]
    columns = (*(Column(_shown(rung), METRIC.value, stage=rung) for rung in rungs), COST)
    rows, used = [], [before]
    for group in methods:
        for part, text in unmixed(group):
            dense = before.loc[before["base"].isin(part["base"].tolist())]
            rows.append(_row(dense, part, rungs, text))
            used.append(part)
    notes = footnotes(pd.concat(used), [row.cells for row in rows], columns)
    headers = (heading("method"), heading("budget"))
    return Table(f"ladder-{name}", f"{title}: {METRIC.label} after each stage", headers, columns, tuple(rows), notes)


_HOW = tuple(field for field in METHOD if field not in ("target", "ratio"))


def _asked(rows: pd.DataFrame) -> list[str]:
    """What the runs of one method are to have after the dense net, step by step."""
    return merged(numbered([*asked] * int(steps)) for asked, steps in zip(rows["asked"], rows["steps"], strict=True))


def _shown(rung: str) -> str:
    name, comma, step = rung.partition(STEP)
    return label("stage", name) + comma + step


def _row(dense: pd.DataFrame, rows: pd.DataFrame, rungs: Sequence[str], note: str) -> Row:
    first, asked = rows.iloc[0], _asked(rows)
    cells = [measure(dense, METRIC.value)]
    cells += [_cell(rows.loc[rows["stage"] == rung], rung in asked) for rung in rungs[1:]]
    method = f"{first['method']} [{note}]" if note else str(first["method"])
    labels, runs = (method, str(first["budget"])), tuple(dict.fromkeys(rows["run_id"]))
    return Row(labels, (*cells, measure(rows, COST.value)), runs)


def _cell(rows: pd.DataFrame, asked: bool) -> Measurement:
    """A stage that the method does not have is none that is missing."""
    found = measure(rows, METRIC.value)
    return ABSENT if found == MISSING and not asked else found
