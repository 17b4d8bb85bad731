"""What benchmarks/channel_blocks.py measured, in Markdown."""

import statistics
from typing import Any

from documents.latency_target import COLUMNS, gained, timed_on

from dcodp.report.formats import markdown_rows

HEAD = ["net", "px", "runtime", "FLOPs wanted", "multiples of", "ms", "of the time", "of the FLOPs",
        "speed-up per FLOPs saved", "mAP50-95, no training", "fine-tuned"]  # fmt: skip


def document(measured: dict[str, Any]) -> str:
    rows = [HEAD]
    for key, row in measured["rows"].items():
        rows += _rows(key, row)
    made = [row["made"] for row in measured["rows"].values()]
    (epochs, lr) = max((m["epochs"], m["lr"]) for m in made)
    tuned = (
        f"\n- fine-tuned: {epochs} epochs by `dcodp prune`'s trainer at a learning rate of {lr:g}." if epochs else ""
    )
    images = dict.fromkeys(f"{key.split()[0]}: {row['dense']['images']}" for key, row in measured["rows"].items())
    return f"""# Channels in blocks

`python benchmarks/channel_blocks.py --net LABEL=CHECKPOINT.pt=DATA.yaml … --size … --share …`, {timed_on(made)}.
`method=strong` to the same share of the FLOPs, the kept channels of every group a multiple of 1, 4, 8 or 16
(`round_to`); one seed.

{markdown_rows(rows, right=range(4, 11))}

- ms: median of one image, the net as ONNX, in turns with the dense net; the median of three timings, each opened anew.
{COLUMNS}{tuned}
- validation images: {", ".join(images)}.
"""


def _rows(key: str, row: dict[str, Any]) -> list[list[str]]:
    label, net, size, runtime = key.split()
    wanted, dense = f"{100 * row['made']['share']:g} %", row["dense"]
    median = statistics.median(small["dense_ms"] for small in row["nets"].values())
    start = [f"{net}, {label}", size, f"{runtime} {row['version']}"]
    rows = [[*start, "", "dense", f"{median:.1f}", "", "", "", f"{dense['map50_95']:.3f}", ""]]
    for blocks, small in row["nets"].items():
        shares = [f"{100 * small[what]:.1f} %" for what in ("time", "flops")]
        rows.append(["", "", "", wanted, blocks, f"{small['ms']:.1f}", *shares, *gained(small)])
    return rows
