"""`dcodp status`: what became of every cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[Path, typer.Option(help="Folder that holds runs/ (paths.results of the runs).")]


def status(results: Results = Path("results")) -> None:
    """List every cell as done, running, failed (with its error), interrupted or missing."""
    from dcodp.report.cell_status import cells, print_cells

    print_cells(cells(results))
