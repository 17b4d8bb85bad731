"""What became of every cell: its record, or the sweep manifest that asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.text import Text

from dcodp.records import Record, load_records, no_runs, read_running, read_sweeps, run_folder
from dcodp.report.methods import budget_name, identity
from dcodp.report.terminal import console

STYLES = {"done": "green", "running": "cyan", "failed": "bold red", "interrupted": "yellow", "missing": "dim"}


@dataclass(frozen=True)
class CellStatus:
    """One cell; `detail` is one line: the error of a failed one, who works on a running one."""

    status: str  # done | running | failed | interrupted | missing
    run_id: str
    name: str
    detail: str = ""


def cells(results: Path) -> list[CellStatus]:
    """Recorded cells by run id, then those that a sweep asked for and that left no trace.

    Raises InputError where there is neither.
    """
    records, sweeps = load_records(results), read_sweeps(results)
    known = {record.run_id for record in records}
    asked = {cell.run_id: (sweep.name, cell) for sweep in sweeps for cell in sweep.cells}
    listed = [_recorded(record, results) for record in records]
    listed += [
        CellStatus("missing", run_id, " ".join(cell.overrides), f"asked for by sweep {name}, not started")
        for run_id, (name, cell) in sorted(asked.items())
        if run_id not in known
    ]
    listed += [CellStatus("failed", "", f"sweep {sweep.name}", sweep.error) for sweep in sweeps if sweep.error]
    if not listed:
        raise no_runs(results)
    return listed


def _recorded(record: Record, results: Path) -> CellStatus:
    status = "failed" if record.status == "broken" else record.status
    detail = " ".join((record.error or "").split()) if status != "done" else ""
    if status == "running" and (owner := read_running(run_folder(results, record.run_id))):
        detail = f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('started')}"
    return CellStatus(status, record.run_id, _name(record), detail)


def _name(record: Record) -> str:
    if not record.config:
        return ""
    who = identity(record.config)
    budget = budget_name(who["target"], who["ratio"])
    return f"{who['model']} {who['dataset']} {who['method']} {budget}, seed {who['seed']}"


def print_cells(listed: Sequence[CellStatus]) -> None:
    """A table in a terminal; elsewhere one line per cell, tab-separated, nothing cut off."""
    to = console()
    if not to.is_terminal:
        for cell in listed:
            print(cell.status, cell.run_id, cell.name, cell.detail, sep="\t")
        return
    table = rich.table.Table("Status", "Run", "Cell", "Detail")
    for cell in listed:
        table.add_row(Text(cell.status, STYLES[cell.status]), cell.run_id, Text(cell.name), Text(cell.detail))
    to.print(table)
    counts = {status: sum(cell.status == status for cell in listed) for status in STYLES}
    to.print(", ".join(f"{count} {status}" for status, count in counts.items() if count), highlight=False)
