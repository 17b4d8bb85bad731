"""What benchmarks/latency_target.py measured, in Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

from dcodp.report.formats import markdown_rows

HEAD = ["net", "px", "runtime", "pruned to", "ms", "of the time", "of the FLOPs", "of the parameters",
        "speed-up per FLOPs saved", "mAP50-95, no training", "fine-tuned"]  # fmt: skip
ASKED = {
    "latency": "time, by the table",
    "flops, blocks": "FLOPs as fast, in blocks",
    "flops, any": "FLOPs as fast, any counts",
    "half, blocks": "half of the FLOPs, in blocks",
    "half, any": "half of the FLOPs, any counts",
}

COLUMNS = """\
- speed-up per FLOPs saved: how many times as fast, divided by how many times fewer FLOPs; 1 would be ideal.
- no training: pruned and repaired from 128 images without labels."""


def document(measured: dict[str, Any]) -> str:
    rows = [HEAD]
    for key, row in measured["rows"].items():
        rows += _rows(key, row)
    made = [row["made"] for row in measured["rows"].values()]
    epochs = max(m["epochs"] for m in made)
    trained = f"{epochs} epochs by `dcodp prune`'s trainer at a learning rate of {made[-1]['lr']:g}, one seed"
    tuned = f"\n- fine-tuned: {trained}." if epochs else ""
    images = dict.fromkeys(
        f"{key.split()[0]}: {row['dense']['images']} images, {row['made']['hardware']}"
        for key, row in measured["rows"].items()
    )
    return f"""# A target in time

`python benchmarks/latency_target.py --net LABEL=CHECKPOINT.pt=DATA.yaml … --size … --epochs …`, {timed_on(made)}.
`method=strong`; wanted: {made[-1]["share"]:g} of the dense net's time, each net as ONNX.

{markdown_rows(rows, right=range(4, 11))}

- ms: median of one image, in turns with the dense net, of which the time stands in the middle of all turns; timed anew
  after the net was chosen (where a net is marked as taken: the median of three such timings, each opened anew).
- in blocks: channels in multiples of 16, or of 8 where those do not meet the time. FLOPs as fast: the share of FLOPs at
  which the time wanted was measured, or the nearest that was tried.
- **bold**: what `--target latency:…` takes: of the nets that are near enough, that whose outputs are nearest to the
  dense net's on 16 calibration images.
{COLUMNS}{tuned}
- {"; ".join(images)}.
- BCCD: checkpoints that ultralytics trained at 320 px: at 640 px their times count, not their accuracy.
  BCCD-640: checkpoints trained on at 640 px for three epochs; YOLO11n's started from random weights.
"""


def _rows(key: str, row: dict[str, Any]) -> list[list[str]]:
    label, net, size, runtime = key.split()
    dense = row["dense"]
    median = statistics.median(small["dense_ms"] for small in row["nets"].values())
    first = [f"{net}, {label}", size, f"{runtime} {row['version']}", "dense", f"{median:.1f}", "", "", "", ""]
    rows = [[*first, f"{dense['map50_95']:.3f}", ""]]
    for name, small in row["nets"].items():
        asked = f"**{ASKED[name]}**" if name == row.get("taken") else ASKED[name]
        shares = [f"{100 * small[what]:.1f} %" for what in ("time", "flops", "parameters")]
        rows.append(["", "", "", asked, f"{small['ms']:.1f}", *shares, *gained(small)])
    return rows


def timed_on(made: Sequence[dict[str, Any]]) -> str:
    """The threads and processors of all rows: "2 threads of A and B"."""
    machines = " and ".join(dict.fromkeys(row["hardware"] for row in made))
    return f"{' or '.join(dict.fromkeys(str(row['threads']) for row in made))} threads of {machines}"


def gained(small: dict[str, Any]) -> list[str]:
    """The last three columns of HEAD."""
    tuned = f"{small['tuned']['map50_95']:.3f}" if "tuned" in small else ""
    return [f"{small['flops'] / small['time']:.2f}", f"{small['map50_95']:.3f}", tuned]
