"""The `dcodp` command. Each command or group of commands is a function or sub-app of its own, put together in
`build_app`; what a command needs is imported when it runs, so that `report` and `status` need no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dcodp.commands.data import build_data_app
from dcodp.commands.graph import graph
from dcodp.errors import InputError

Results = Annotated[Path, typer.Option(help="Folder that holds runs/ (paths.results of the runs).")]
EXPERIMENTS = Path("experiments")


def report(
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Where to write; default: the results folder.")] = None,
    experiments: Annotated[
        Path | None, typer.Option(help="Folder of declared tables and figures; default: ./experiments if present.")
    ] = None,
) -> None:
    """Render all tables, figures and report.html from the records; nothing is computed anew."""
    from dcodp.report.build import render_report
    from dcodp.report.terminal import console, print_tables

    layouts = experiments or (EXPERIMENTS if EXPERIMENTS.is_dir() else None)
    rendered = render_report(results, out or results, layouts)
    to = console()
    print_tables(rendered.tables, to)
    without = "" if layouts else " (no ./experiments here: the default layout only)"
    to.print(
        f"{rendered.page} and {len(rendered.files) - 1} tables and figures; missing cells: {rendered.missing}{without}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def status(results: Results = Path("results")) -> None:
    """List every cell as done, running, failed (with its error), interrupted or missing."""
    from dcodp.report.cell_status import cells, print_cells

    print_cells(cells(results))


def build_app() -> typer.Typer:
    app = typer.Typer(
        help="Structured pruning for object detectors: reports, status and tools.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(report)
    app.command()(status)
    app.command()(graph)
    app.add_typer(build_data_app(), name="data")
    return app


def main() -> None:
    """Bad input: one line on stderr and exit status 2. Anything else keeps its traceback."""
    try:
        build_app()()
    except InputError as error:
        print(f"dcodp: {error}", file=sys.stderr)
        sys.exit(2)
