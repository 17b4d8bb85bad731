"""The default table in a terminal: dense, pruned and fine-tuned, after a run, a sweep or `dcodp report`."""

from __future__ import annotations

from collections.abc import Iterable

import rich.table
from rich.console import Console
from rich.text import Text

from dcodp.records import Record
from dcodp.report.formats import cell_text
from dcodp.report.query import Measurement, measurements
from dcodp.report.tables import Table, default_tables

# What fits beside the labels in 100 columns; the rest is in the files. value → heading
SHOWN = {
    "map50": "mAP50",
    "map50_95": "mAP50-95",
    "parameters": "Params (M)",
    "parameters_removed": "−%",
    "flops": "FLOPs (G)",
    "flops_removed": "−%",
    "latency_ms": "ms",
}


def console() -> Console:
    """As wide as the terminal; a pipe or a file gets whole lines instead of 80 columns."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=160, no_color=True)


def print_results(records: Iterable[Record], to: Console | None = None) -> None:
    """One table for each data set, detector and setting among `records`."""
    print_tables(default_tables(measurements(records)), to)


def print_tables(tables: Iterable[Table], to: Console | None = None) -> None:
    to = to or console()
    for table in tables:
        to.print(_rich(table))
        for note in table.footnotes:
            if note.startswith(("Data:", "Schedule:", "Mean")):
                to.print(Text(note, "dim"))


def _rich(table: Table) -> rich.table.Table:
    shown = [(i, column) for i, column in enumerate(table.columns) if column.value in SHOWN]
    drawn = rich.table.Table(title=Text(table.title, "bold"), title_justify="left")
    for header in table.headers:
        drawn.add_column(header)
    for _, column in shown:
        drawn.add_column(SHOWN[column.value], justify="right", no_wrap=True)
    for row in table.rows:
        values = [_text(row.cells[i], cell_text(row.cells[i], column)) for i, column in shown]
        drawn.add_row(*map(Text, row.labels), *values)  # Text: a label's [brackets] are no markup
    return drawn


def _text(cell: Measurement, text: str) -> Text:
    return Text(text, "dim" if cell.mean is None else "")
