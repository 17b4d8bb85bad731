"""What benchmarks/records_at_scale.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows

LIMITS = {"status": 20.0, "watch": 2.0, "query": 60.0, "report": 120.0}  # seconds for the larger number of records
MEMORY_LIMIT_MB = 1024
WHAT = {
    "status": "`dcodp status`",
    "watch": "another look of `dcodp status --watch`",
    "query": "records to rows, means and tables",
    "report": "`dcodp report`: tables, figures, claims, ladders and the page",
}


def document(measured: dict[str, Any]) -> str:
    what, rows = measured["provenance"], measured["records"]
    sizes = sorted(rows, key=int)
    header = ("", *(f"{int(size):,} records: {unit}" for size in sizes for unit in ("s", "MB")), "limit s")
    table = markdown_rows([header, *(_row(step, rows, sizes) for step in WHAT)], right=range(1, len(header)))
    written = "; ".join(
        f"{int(size):,} records of {rows[size]['megabytes'] / int(size) * 1e3:.1f} kB were written in "
        f"{rows[size]['write_seconds']:.1f} s"
        for size in sizes
    )
    return f"""# Thousands of records

`{what["command"]}`, {what["hardware"]}, other work beside it. {written}. The limit of memory is {MEMORY_LIMIT_MB} MB.

{table}
"""


def _row(step: str, rows: dict[str, Any], sizes: list[str]) -> tuple[str, ...]:
    found = [rows[size]["steps"][step] for size in sizes]
    cells = (text for one in found for text in (f"{one['seconds']:.1f}", f"{one['memory_mb']:.0f}"))
    return (WHAT[step], *cells, f"{LIMITS[step]:.0f}")
