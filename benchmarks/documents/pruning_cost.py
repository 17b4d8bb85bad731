"""What benchmarks/pruning_cost.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    rows = [
        ["", "s of the processor", "\u00d7 forward"],
        ["forward passes alone", f"{measured['plain_seconds']:.1f}", "1.0"],
        [
            "trace, look, score, measure single groups, choose, cut, repair",
            f"{measured['prune_seconds']:.1f}",
            f"{measured['ratio']:.1f}",
        ],
    ]
    setting = f"{what['images']} generated images of {what['size']} px, {what['threads']} thread of {what['hardware']}"
    memory = f"{measured['memory_mb']:.0f} MB (limit {measured['memory_limit_mb']} MB)"
    return f"""# What pruning and repair cost

`python benchmarks/pruning_cost.py`: YOLOv8n, `method=strong`, half of the FLOPs, {setting},
torch {what["libraries"]["torch"]}. Memory grows by {memory}; the limit of time is
{measured["limit"]:.0f} times the forward passes.

{markdown_rows(rows, right=range(1, 3))}
"""
