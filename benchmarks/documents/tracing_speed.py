"""What benchmarks/tracing_speed.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows

LIMITS = {"yolov8n": 1.0, "fasterrcnn_resnet50_fpn": 3.0, "rtdetr-l": 6.0}  # seconds on one CPU thread
HEADER = ("net", "forward s", "trace s", "limit s", "memory MB")


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    machine = f"{what['threads']} thread of {what['hardware']}, torch {what['libraries']['torch']}, float32"
    table = markdown_rows([HEADER, *(_cells(name, row) for name, row in measured["nets"].items())], right=range(1, 5))
    return f"# Tracing and grouping at 640 px\n\n`{what['command']}`, {machine}.\n\n{table}\n"


def _cells(name: str, row: dict[str, float]) -> tuple[str, ...]:
    seconds = (f"{row[key]:.2f}" for key in ("forward_seconds", "trace_seconds"))
    return (name, *seconds, f"{LIMITS[name]:.0f}", f"{row['memory_mb']:.0f}")
