"""What benchmarks/sweep_overhead.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    rows = [["launcher", "whole call, s", "cells' own work, s", "overhead per cell, s"]]
    for launcher, row in measured["launchers"].items():
        rows.append([launcher, *(f"{row[key]:.1f}" for key in ("wall_seconds", "own_seconds")),
                     f"{row['overhead_per_cell_seconds']:.2f}"])  # fmt: skip
    launchers = " ".join(f"--launcher {launcher}" for launcher in measured["launchers"])
    machine = f"{what['hardware']}, which did other work beside, torch {what['libraries']['torch']}"
    return f"""# What a launcher and the records cost per cell

`python benchmarks/sweep_overhead.py {launchers}`:
{what["cells"]} small cells, one worker, {machine}.
The limit is {measured["limit"]:.0f} s. All counts that is not a stage's own work: the start of the command, its plan,
its report, and in SLURM the start of a Python with torch for each job, which six cells share here.

{markdown_rows(rows, right=range(1, 4))}
"""
