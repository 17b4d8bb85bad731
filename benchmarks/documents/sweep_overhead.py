"""What benchmarks/sweep_overhead.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    sizes = sorted(next(iter(measured["launchers"].values()))["calls"], key=int)
    rows = [["launcher", *(f"{size} cells: {part}" for size in sizes for part in ("s", "of it stages")), "s per cell"]]
    for launcher, row in measured["launchers"].items():
        calls = [row["calls"][size] for size in sizes]
        told = [f"{call[key]:.1f}" for call in calls for key in ("wall_seconds", "own_seconds")]
        rows.append([launcher, *told, f"{row['overhead_per_cell_seconds']:.2f}"])
    launchers = " ".join(f"--launcher {launcher}" for launcher in measured["launchers"])
    machine = f"{what['hardware']}, which did other work beside, torch {what['libraries']['torch']}"
    return f"""# What a launcher and the records cost per cell

`python benchmarks/sweep_overhead.py {launchers}`:
small cells, one worker, {machine}.
The last column is what a further cell adds beside its own stages; its limit is {measured["limit"]:.0f} s. The rest of a
call is its start, its plan, what cells share, its report, and in SLURM the start of a Python with torch for each job,
which six cells share here.

{markdown_rows(rows, right=range(1, 6))}
"""
