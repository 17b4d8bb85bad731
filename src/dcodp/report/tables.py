"""Layout + rows of measurements → a table with its footnotes and its missing cells. Text is made in formats.py."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dcodp.report.labels import heading, label
from dcodp.report.layouts import DEFAULT_TABLE, FOUND, Column, TableLayout
from dcodp.report.methods import METHOD, stages_asked
from dcodp.report.notes import footnotes
from dcodp.report.query import MISSING, Measurement, Selection, comparable, differences, measure, select

DENSE_FIELDS = ("model", "family", "dataset", "seed", "subset")  # what can be asked of a net that is not pruned
ABSENT = Measurement(None, state="none")


@dataclass(frozen=True)
class Row:
    """`labels` as shown, one per label header; one measurement per column; the runs that they rest on."""

    labels: tuple[str, ...]
    cells: tuple[Measurement, ...]
    run_ids: tuple[str, ...]
    dense: bool = False  # of the net that is not pruned


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    headers: tuple[str, ...]  # of the labels
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    command: str = ""
    datasets: tuple[str, ...] = ()  # that it asks for
    missing: tuple[str, ...] = ()  # cells that the layout asks for and no record holds

    @property
    def measured(self) -> bool:
        """Whether any record holds anything of it."""
        return any(row.run_ids for row in self.rows)


def build_table(layout: TableLayout, frame: pd.DataFrame) -> Table:
    """frame: `query.measurements`, all of them; the layout's filters are applied here."""
    asked = list(_asked(layout, frame))
    built = [_row(layout, ask) for ask in asked]
    rows = tuple(row for row, _ in built)
    used = frame.loc[list(dict.fromkeys(itertools.chain.from_iterable(cell.index for _, cell in built)))]
    return Table(
        layout.name,
        layout.title,
        headers=tuple(heading(key) for key in layout.rows),
        columns=layout.columns,
        rows=rows,
        footnotes=footnotes(used, [row.cells for row in rows], layout.columns),
        claims=layout.claims,
        command=layout.command,
        datasets=tuple(dict.fromkeys(ask.fields["dataset"] for ask in asked)),
        missing=tuple(itertools.chain.from_iterable(_missing(row, layout.columns) for row in rows)),
    )


@dataclass(frozen=True)
class _Ask:
    """One row to fill: the values of its fields, what to call its setting, the records it may draw on."""

    fields: Mapping[str, Any]
    note: str
    dense: pd.DataFrame
    later: pd.DataFrame  # of these values, unless the row is the dense net's
    dense_note: str = ""  # what tells the dense net from the others that nets of this setting came from


def _asked(layout: TableLayout, frame: pd.DataFrame) -> Iterator[_Ask]:
    """Every row of the table in order: data sets, detectors, settings, the dense net, then the other fields."""
    dense = frame.loc[frame["stage"] == "dense"]
    dense = select(dense, {key: value for key, value in layout.where.items() if key in DENSE_FIELDS})
    later = select(frame.loc[frame["stage"] != "dense"], {k: v for k, v in layout.where.items() if k != "stage"})
    for dataset, model in _subjects(layout, later):
        who = {"dataset": dataset, "model": model}
        for note, before, after in _settings(select(dense, who), select(later, who)):
            for net, text in unmixed(before) if layout.dense else ():
                yield _Ask({**who, "stage": "dense"}, note, net, after, text)
            chosen = Selection(after)
            for combination in _combinations(layout, chosen):
                for rows, text in unmixed(chosen.where(_later(combination))):
                    own = ", ".join(filter(None, (note, text)))
                    yield _Ask({**who, "stage": layout.stage, **combination}, own, before, rows)


def _later(combination: Mapping[str, Any]) -> dict[str, Any]:
    """What it asks of a net but the stage, which the columns may each choose."""
    return {key: value for key, value in combination.items() if key != "stage"}


def unmixed(rows: pd.DataFrame) -> list[tuple[pd.DataFrame, str]]:
    """Dense nets that were not trained alike share no cell, nor do nets pruned from them: (rows, what is different)."""
    groups = [group for _, group in rows.groupby("base", sort=False)]
    texts = differences([group.iloc[0]["base_of"] for group in groups])
    return list(zip(groups, texts, strict=True)) or [(rows, "")]


def _subjects(layout: TableLayout, frame: pd.DataFrame) -> list[tuple[Any, Any]]:
    """(data set, detector) pairs: those declared, in their order, then those found where the layout allows them."""
    choices = []
    for key in ("dataset", "model"):
        fixed = layout.where.get(key, FOUND)
        declared = layout.rows.get(key, tuple(fixed) if isinstance(fixed, list | tuple) else (fixed,))
        found = sorted(set(frame[key]) - set(declared)) if FOUND in declared else []
        choices.append([*(value for value in declared if value != FOUND), *found])
    return list(itertools.product(*choices))


def _settings(dense: pd.DataFrame, later: pd.DataFrame) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Records are never averaged over settings: (how it differs from the others, dense rows, later rows) for each, in
    the order of their texts, which a further key of the configuration does not change."""
    groups = [group for _, group in later.groupby("setting")]
    if not groups:
        bases = [group for _, group in dense.groupby("base")]
        texts = differences([group.iloc[0]["base_of"] for group in bases])
        found = list(zip(texts, bases, [later] * len(bases), strict=True)) or [("", dense, later)]
    else:
        texts = differences([group.iloc[0]["setting_of"] for group in groups])
        bases = [dense.loc[dense["base"].isin(group["base"].tolist())] for group in groups]
        found = list(zip(texts, bases, groups, strict=True))
    return sorted(found, key=lambda one: one[0])


def _combinations(layout: TableLayout, chosen: Selection) -> list[dict[str, Any]]:
    """Declared values as a product, fields that are FOUND as the combinations that were measured, jointly."""
    keys = [key for key in layout.rows if key not in ("dataset", "model")]
    starred = [key for key in keys if layout.rows[key] == (FOUND,) and key != "stage"]
    coupled_first = [key != "interlayer" for key in METHOD]
    ordered = chosen.frame.sort_values([*METHOD], ascending=coupled_first, kind="stable") if starred else None
    rows = [] if ordered is None else zip(*(ordered[key].tolist() for key in starred), strict=True)
    different = {comparable(values): values for values in rows}.values()
    found = [dict(zip(starred, values, strict=True)) for values in different]
    declared = [[(key, v) for v in layout.rows[key]] for key in keys if layout.rows[key] != (FOUND,)]
    every = [{**one, **dict(rest)} for one in found or [{}] for rest in itertools.product(*declared)] if keys else []
    if layout.rows.get("stage") != (FOUND,):
        return every
    return [{**one, "stage": stage} for one in every for stage in _stages(chosen.where(one))]


def _stages(rows: pd.DataFrame) -> list[str]:
    """Those measured, in the order of the records, then those that the runs are still to have."""
    asked = itertools.chain.from_iterable(rows["asked"])
    return list(dict.fromkeys([*rows["stage"], *asked])) or list(stages_asked({}))


def _row(layout: TableLayout, ask: _Ask) -> tuple[Row, pd.DataFrame]:
    """The row and the records that it draws on."""
    is_dense = ask.fields["stage"] == "dense"
    rows = ask.dense if is_dense else ask.later
    stages = [ask.fields["stage"] if is_dense else column.stage or ask.fields["stage"] for column in layout.columns]
    before = (None, "dense", layout.stage)  # columns in which the dense net has something to be compared by
    at = {stage: rows.loc[rows["stage"] == stage] for stage in set(stages)}
    cells = tuple(
        ABSENT if is_dense and column.stage not in before else measure(at[stage], column.value)
        for column, stage in zip(layout.columns, stages, strict=True)
    )
    used = rows.loc[rows["stage"].isin(stages)]
    return Row(_labels(layout, ask, is_dense), cells, tuple(dict.fromkeys(used["run_id"])), is_dense), used


def _labels(layout: TableLayout, ask: _Ask, is_dense: bool) -> tuple[str, ...]:
    """A dense row says so in the first field that does not apply to it; the setting stands with the first label."""
    labels = [layout.label(key, ask.fields[key]) if key in ask.fields else "" for key in layout.rows]
    own = [i for i, key in enumerate(layout.rows) if key not in ("dataset", "model")]
    if is_dense and own:
        for i in own:
            labels[i] = ""
        labels[own[0]] = layout.label("stage", "dense") + (f" [{ask.dense_note}]" if ask.dense_note else "")
    return (f"{labels[0]} [{ask.note}]" if ask.note else labels[0], *labels[1:])


def _missing(row: Row, columns: tuple[Column, ...]) -> list[str]:
    name = ", ".join(filter(None, row.labels))
    lacking = [column.label for column, cell in zip(columns, row.cells, strict=True) if cell == MISSING]
    if len(lacking) == sum(cell.state != "none" for cell in row.cells):
        return [name] if lacking else []
    return [f"{name}: {', '.join(lacking)}"] if lacking else []


def subjects(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """(name, title, dense rows, later rows) of each data set, detector and setting."""
    for _, rows in frame.groupby(["dataset", "model"], sort=True):
        dataset, model = rows.iloc[0]["dataset"], rows.iloc[0]["model"]
        dense, later = rows.loc[rows["stage"] == "dense"], rows.loc[rows["stage"] != "dense"]
        for number, (note, before, after) in enumerate(_settings(dense, later), 1):
            title = f"{label('model', model)} on {label('dataset', dataset)}" + (f" [{note}]" if note else "")
            yield f"{dataset}-{model}-{number}", title, before, after


def default_tables(frame: pd.DataFrame) -> list[Table]:
    """One table per data set, detector and setting: dense, pruned, fine-tuned at every method and ratio measured."""
    tables = []
    for name, title, before, after in subjects(frame):
        rows = pd.concat([before, after])
        where = {key: rows.iloc[0][key] for key in ("dataset", "model")}
        layout = dataclasses.replace(DEFAULT_TABLE, name=f"{DEFAULT_TABLE.name}-{name}", title=title, where=where)
        tables.append(build_table(layout, rows))
    return tables
