"""Tables as Markdown, CSV and LaTeX (booktabs). CSV holds raw values, the other two what a reader wants to see."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from dcodp.report.layouts import Column
from dcodp.report.query import Measurement
from dcodp.report.tables import Table

SCALES: dict[str, tuple[float, int]] = {  # format → (factor, decimals)
    "ap": (100, 1),
    "share": (100, 1),
    "millions": (1e-6, 3),
    "giga": (1e-9, 2),
    "ms": (1, 1),
    "count": (1, 0),
}
STATES = {"missing": "missing", "none": "—", "mixed": "mixed"}


def cell_text(cell: Measurement, column: Column) -> str:
    """ "34.8", "34.8 ± 0.3" over seeds, "missing", "—" or "mixed"."""
    if cell.mean is None:
        return STATES[cell.state]
    factor, decimals = SCALES[column.format]
    text = f"{cell.mean * factor:.{decimals}f}"
    counted = column.format in ("millions", "giga", "share", "count")
    if cell.spread is None or (counted and cell.spread == 0):  # "± 0.000" would say nothing about a count
        return text
    return f"{text} ± {cell.spread * factor:.{decimals}f}"


def texts(table: Table) -> list[list[str]]:
    """The rows as shown, labels first."""
    return [
        [*row.labels, *(cell_text(cell, column) for cell, column in zip(row.cells, table.columns, strict=True))]
        for row in table.rows
    ]


def markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    head = [*table.headers, *(column.label for column in table.columns)]
    rule = ["---"] * len(table.headers) + ["---:"] * len(table.columns)
    lines = [f"| {' | '.join(_bar(text) for text in row)} |" for row in (head, rule, *texts(table))]
    return "\n".join([f"### {table.title}", "", *lines, "", *(f"- {note}" for note in table.footnotes), ""])


def _bar(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def csv_text(tables: Sequence[Table]) -> str:
    """One header for all: table, labels, then value, spread and number of seeds per column, in the records' own names
    and units (AP and shares from 0 to 1, plain counts, milliseconds). Where there is no value the field is empty and
    n is 0; `missing` names the columns that were not measured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if tables:
        names = [csv_name(column) for column in tables[0].columns]
        values = [f"{name}{end}" for name in names for end in ("", "_spread", "_n")]
        writer.writerow(["table", *tables[0].headers, *values, "missing", "run_ids"])
    for table in tables:
        for row in table.rows:
            values = [v for cell in row.cells for v in (cell.mean, cell.spread, cell.n)]
            lacking = [csv_name(c) for cell, c in zip(row.cells, table.columns, strict=True) if cell.state == "missing"]
            writer.writerow([table.title, *row.labels, *values, " ".join(lacking), " ".join(row.run_ids)])
    return stream.getvalue()


def csv_name(column: Column) -> str:
    """ "map50", or "pruned/map50" for a column that shows one stage whatever the row."""
    return f"{column.stage}/{column.value}" if column.stage else column.value


LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "—": "---",
    "–": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "<": r"$<$",
    ">": r"$>$",
}


def latex_escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def latex(tables: Sequence[Table]) -> str:
    r"""Needs \usepackage{booktabs}; wide tables also \usepackage{graphicx} for the \resizebox."""
    return "\n".join(_latex(table) for table in tables)


def _latex(table: Table) -> str:
    head = [*table.headers, *(column.label for column in table.columns)]
    wide = len(head) > 9
    body = [" & ".join(map(latex_escape, row)) + r" \\" for row in texts(table)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_escape(table.title)}}}",
        rf"\label{{tab:{label_name(table.name)}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{{'l' * len(table.headers)}{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(map(latex_escape, head)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
        *([r"\par\footnotesize " + " ".join(map(latex_escape, table.footnotes))] if table.footnotes else []),
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def label_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


RENDERERS: dict[str, Callable[[Sequence[Table]], str]] = {"md": markdown, "csv": csv_text, "tex": latex}
