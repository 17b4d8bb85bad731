"""What benchmarks/whole_way.py measured, in Markdown."""

from typing import Any

from dcodp.report.formats import markdown_rows

HEAD = ["net", "pruned", "dense mAP50-95", "small", "kept", "mAP50 by the card", "by ultralytics' val", "parameters",
        "after training on", "as it must be"]  # fmt: skip


def document(measured: dict[str, Any]) -> str:
    what = measured["provenance"]
    rows = [HEAD]
    for name, net in measured["nets"].items():
        rows.append(_row(name, "once", net["small"], net["card"], net["holds"]))
        rows.append(_row("", "again", net["smaller"], None, net["holds"]))
    told = [f"{name} for {net['epochs']} epochs from {net['start'] or 'random weights'}" for name, net in
            measured["nets"].items()]  # fmt: skip
    machine = f"{what['hardware']} beside other work, ultralytics {what['libraries']['ultralytics']}"
    return f"""# The whole way of a checkpoint

`python benchmarks/whole_way.py`, with the Python of an environment that holds the wheel: BCCD at {what["size"]} px,
trained by ultralytics ({"; ".join(told)}),
given to `dcodp prune --target {what["target"]}` with {what["small_epochs"]} epochs of fine-tuning, opened, validated,
exported and trained on by ultralytics, pruned once more. One seed, validation images, {machine}.

{markdown_rows(rows, right=range(2, 9))}

As it must be: the two mAP50 differ by 0.005 at most, 97 % of the dense mAP50-95 are kept, further training keeps the
number of parameters, and ultralytics' own trainer, which would build the dense net again, is stopped with the line to
type.
"""


def _row(name: str, times: str, used: dict[str, Any], card: dict[str, Any] | None, holds: bool) -> list[str]:
    both = [f"{used['map50'][by]:.3f}" for by in ("card", "val")]
    counts = [f"{used['parameters'][when] / 1e6:.2f} M" for when in ("card", "trained on")]
    dense, kept = (f"{card['dense']['map50_95']:.3f}", f"{100 * used['kept']:.1f} %") if card else ("", "")
    return [name, times, dense, f"{used['map50_95']['card']:.3f}", kept, *both, *counts, "yes" if holds else "no"]
