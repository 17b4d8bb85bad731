"""How figures look: legible in print, told apart without colour too."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcodp.report.query import Measurement

# Okabe and Ito's colours, safe for colour-blind readers (yellow left out: too pale on white)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P", "X", "<"), ("-", "--", "-.", ":")  # 8 with 7 colours: 56 pairs
MAX_PANELS, LONG_NAME = 6, 40
STYLE: dict[Any, Any] = {
    **{"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "hatch.linewidth": 0.5},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": False},
    **{"pdf.fonttype": 42, "savefig.facecolor": "white", "text.parse_math": False},  # a $ in a name is a $
}


def panels(count: int, width: float, height: float, stacked: bool) -> tuple[Figure, list[Axes]]:
    size = (width, height * count) if stacked else (width * count, height)
    figure = Figure(figsize=(size[0], size[1] + 0.8), layout="constrained")
    axes = figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False)
    return figure, list(axes.flat)


def percent(found: Measurement) -> tuple[float, float]:
    """AP × 100 and its spread, NaN where there is none."""
    mean = float("nan") if found.mean is None else 100 * found.mean
    return mean, 100 * (found.spread or 0.0)


def key(axis: Axes, entries: int) -> None:
    """Inside where there is room; where it would cover the data beside the axes, or below where names are long."""
    longest = max(len(str(text)) for text in axis.get_legend_handles_labels()[1])
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if entries > 4 else {}
    below: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (1, -0.2)}
    axis.legend(fontsize=8, **(below if longest > LONG_NAME else beside))


def mark(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
    }


def titled(figure: Figure, title: str, caption: str) -> Figure:
    """The caption says what the figure stands on, so that the file can travel alone."""
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel(caption, fontsize=8, color="#444444")
    return figure
