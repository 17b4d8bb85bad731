"""What benchmarks/calibration.py measured, in Markdown."""

import statistics as stats
from typing import Any

AGREED = 0.95  # rank correlation between two disjoint sets at which their size is called enough


def document(result: dict[str, Any]) -> str:
    weights = f"weights {result['weights']}" if result["weights"] else "untrained"
    return f"""# How much scores depend on the calibration images

{result["model"]}, {weights}, {result["dataset"]} at {result["image_size"]} px, {result["hardware"]}.
`{result["command"]}`

{table(result["criteria"], result["ratio"])}

- ρ: Spearman's rank correlation of the scores from two disjoint sets of images.
- Overlap: the share of the kept channels that two sets agree on when {result["ratio"]:.0%} of each group are removed.
  Channels of equal score are kept in the order of their number, so that few distinct scores make for a large overlap.
- Means over coupling groups, weighted by channels, and over pairs of sets; ± is the standard deviation over pairs.
- Images for ρ ≥ {AGREED}: the smallest size measured that reaches it. DCODP's is the default number of calibration
  images.
- Distinct scores: of the largest sets, the share of a group's channels that differ in score.
"""


def enough(by_size: dict[str, dict[str, Any]]) -> int | None:
    """The smallest size measured from which on the mean rank correlation is at least AGREED; None where none is."""
    least = None
    for size in sorted(by_size, key=int, reverse=True):
        known = [value for value in by_size[size]["rank_correlation"] if value is not None]
        if not known or stats.mean(known) < AGREED:
            break
        least = int(size)
    return least


def text(values: list[float | None]) -> str:
    """ "0.981 ± 0.004", or a dash where there are no two disjoint sets."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return f"{stats.mean(known):.3f}" + (f" ± {stats.stdev(known):.3f}" if len(known) > 1 else "")


def table(found: dict[str, dict[str, Any]], ratio: float) -> str:
    sizes = list(dict.fromkeys(size for by_size in found.values() for size in by_size))
    heads = ["criterion", *(f"{size} images: {what}" for size in sizes for what in ("ρ", "overlap"))]
    heads += [f"images for ρ ≥ {AGREED}", "distinct scores"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, by_size in found.items():
        share = by_size[sizes[-1]]["distinct"]
        figures = [text(by_size[s][key]) for s in sizes for key in ("rank_correlation", "overlap")]
        told = f"> {sizes[-1]}" if (size := enough(by_size)) is None else str(size)
        told = "–" if figures[-2] == "–" else told
        lines.append([name, *figures, told, "–" if share is None else f"{share:.0%}"])
    lines.append(["(chance)", *["0", f"{1 - ratio:g}"] * len(sizes), "", ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
