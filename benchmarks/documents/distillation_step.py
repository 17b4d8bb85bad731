"""What benchmarks/distillation_step.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    rows = [
        ["", "s", "\u00d7 plain"],
        ["plain step", f"{measured['plain_seconds']:.2f}", "1.00"],
        ["step with a teacher", f"{measured['taught_seconds']:.2f}", f"{measured['ratio']:.2f}"],
    ]
    setting = f"{what['batch']} generated images of {what['size']} px in a batch, {what['numbers']}"
    machine = f"{what['threads']} thread of {what['hardware']}, torch {what['libraries']['torch']}"
    return f"""# What a teacher costs

`{what["command"]}`: YOLOv8n at half of its FLOPs, {setting},
{machine}. Medians of {what["pairs"]} pairs of steps in turns; the ratio is the median over
pairs, its limit {measured["limit"]}.

{markdown_rows(rows, right=range(1, 3))}
"""
