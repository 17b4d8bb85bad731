"""`dcodp status`: what became of every cell, and with --watch how far the others are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dcodp.report.cell_status import CellStatus, Watched

Results = Annotated[Path, typer.Option(help="Folder that holds runs/ (paths.results of the runs).")]
Watch = Annotated[bool, typer.Option(help="Go on until no cell runs or is missing any more.")]
Every = Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)]
STOPPED = 130  # the exit status after Ctrl-C, as a shell gives it
AROUND = 7  # lines of a terminal that the table's frame and what is below it take


def status(results: Results = Path("results"), watch: Watch = False, every: Every = 2.0) -> None:
    """List every cell as done, running, failed (with its error), interrupted or missing."""
    from dcodp.report.cell_status import cells, print_cells

    if not watch:
        print_cells(cells(results))
        return
    try:
        _watch(results, every)
    except KeyboardInterrupt:  # the cells go on
        raise typer.Exit(STOPPED) from None


def _watch(results: Path, every: float) -> None:
    """A table that is drawn anew in a terminal; elsewhere a line for each cell that is no more as it was."""
    from rich.live import Live

    from dcodp.report.cell_status import Watched, in_progress, table
    from dcodp.report.terminal import console

    to, watched = console(), Watched(results)
    if not to.is_terminal:
        _tell_changes(watched, every)
        return
    with Live(console=to, auto_refresh=False) as live:
        while True:
            listed = watched.cells()
            rows = max(1, to.height - AROUND) if in_progress(listed) else None
            live.update(table(listed, rows), refresh=True)
            if not in_progress(listed):
                return
            time.sleep(every)


def _tell_changes(watched: Watched, every: float) -> None:
    from dcodp.report.cell_status import in_progress, line

    before: set[CellStatus] = set()
    while True:
        listed = watched.cells()
        for cell in listed:
            if cell not in before:
                print(line(cell), flush=True)
        if not in_progress(listed):
            return
        before = set(listed)
        time.sleep(every)
