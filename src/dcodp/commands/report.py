"""`dcodp report`: tables, figures and the page, from records and cards alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dcodp.commands.status import Results
from dcodp.resources import folder

HERE = Path("experiments")


def report(
    results: Results = Path("results"),
    out: Annotated[Path | None, typer.Option(help="Where to write; default: the results folder.")] = None,
    experiments: Annotated[
        Path | None,
        typer.Option(help="Folder of declared tables and figures; default: ./experiments if present, else dcodp's."),
    ] = None,
) -> None:
    """Render all tables, figures and report.html from records and cards of dcodp prune; nothing is computed anew."""
    from dcodp.report.build import render_report
    from dcodp.report.terminal import console, print_tables

    layouts = experiments or (HERE if HERE.is_dir() else folder("experiments"))
    rendered = render_report(results, out or results, layouts)
    to = console()
    print_tables(rendered.tables, to)
    none = f"; no records yet: {', '.join(rendered.unrecorded)}" if rendered.unrecorded else ""
    to.print(
        f"{rendered.page} and {len(rendered.files) - 1} tables and figures; missing cells: {rendered.missing}{none}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
