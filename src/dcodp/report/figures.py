"""Figures from rows of measurements: PNG and PDF, legible in print, told apart without colour too."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dcodp.files import write_atomically
from dcodp.report.layouts import COLUMNS, FigureLayout
from dcodp.report.notes import data_name, schedules
from dcodp.report.point_names import Point, write_names
from dcodp.report.query import Measurement, class_names, measure
from dcodp.report.series import Series, series_of

# Okabe and Ito's colours, safe for colour-blind readers (yellow left out: too pale on white)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P", "X", "<"), ("-", "--", "-.", ":")  # 8 with 7 colours: 56 pairs
BARS = ("#333333", "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#999999")
HATCHES = ("", "", "//", "..", "xx", "\\\\", "--", "oo")
MAX_PANELS, MAX_CLASSES = 6, 24
STYLE: dict[Any, Any] = {
    **{"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "hatch.linewidth": 0.5},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": False},
    **{"pdf.fonttype": 42, "savefig.facecolor": "white", "text.parse_math": False},  # a $ in a name is a $
}


def draw(layout: FigureLayout, frame: pd.DataFrame) -> Figure | None:
    """None where no record holds anything to draw."""
    lines = series_of(layout, frame)
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        return _titled(KINDS[layout.kind](layout, lines), layout, lines)


def _titled(figure: Figure, layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    figure.suptitle(layout.title, fontsize=12, fontweight="bold")
    figure.supxlabel(_caption(lines), fontsize=8, color="#444444")
    return figure


def _caption(lines: Sequence[Series]) -> str:
    """The images that the figures stand on and the schedules, so that the file can travel alone."""
    rows = [row for line in lines for row in line.later.to_dict("records")]
    return "; ".join(dict.fromkeys(map(data_name, rows))) + "\n" + schedules(rows)


def _panels(count: int, width: float, height: float, stacked: bool) -> tuple[Figure, list[Axes]]:
    size = (width, height * count) if stacked else (width * count, height)
    figure = Figure(figsize=(size[0], size[1] + 0.8), layout="constrained")
    axes = figure.subplots(count if stacked else 1, 1 if stacked else count, squeeze=False)
    return figure, list(axes.flat)


def _percent(found: Measurement) -> tuple[float, float]:
    """AP × 100 and its spread, NaN where there is none."""
    mean = float("nan") if found.mean is None else 100 * found.mean
    return mean, 100 * (found.spread or 0.0)


def draw_curve(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP of the fine-tuned net against the share of channels removed; 0 % is the dense net."""
    figure, axes = _panels(len(layout.metrics), 5.0, 3.6, stacked=False)
    for axis, metric in zip(axes, layout.metrics, strict=True):
        for i, line in enumerate(lines):
            points = [(100 * r, *_percent(measure(line.at(r), metric))) for r in line.ratios]
            x, y, spread = zip(*points, strict=True)
            axis.errorbar(x, y, yerr=spread, label=line.name, capsize=3, **_mark(i))
        axis.set(xlabel="channels removed from every group (%)", ylabel=f"{COLUMNS[metric].label} × 100")
    _key(axes[-1], len(lines))
    return figure


def _key(axis: Axes, entries: int) -> None:
    """Inside where there is room; beside the axes where it would cover the data."""
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if entries > 4 else {}
    axis.legend(fontsize=8, **beside)


def _mark(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
    }


def draw_pareto(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP against FLOPs; dense nets are hollow, the front joins what nothing else beats in both."""
    figure, (axis, *_) = _panels(1, 7.0, 4.2, stacked=True)
    points: list[Point] = []
    for i, line in enumerate(lines):
        points += _scatter(axis, line, layout.metrics[0], _mark(i) | {"linestyle": "none"}, known=points)
    places = [(point.x, point.y) for point in points]
    x, y = zip(*pareto_front(places), strict=True) if places else ((), ())
    axis.plot(x, y, color="#777777", linewidth=1, zorder=0, label="Pareto front")
    if places and max(places)[0] > 8 * min(places)[0]:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel="FLOPs (G)", ylabel=f"{COLUMNS[layout.metrics[0]].label} × 100")
    axis.margins(x=0.12, y=0.12)
    _key(axis, len(lines))
    write_names(_titled(figure, layout, lines), axis, points)
    return figure


def _scatter(axis: Axes, line: Series, metric: str, mark: dict[str, Any], known: Sequence[Point]) -> list[Point]:
    """Draws the nets of one series and returns them at (GFLOPs, AP × 100), named by budget. What is `known`, the dense
    net of several methods, is drawn once."""
    points = []
    for budget, rows in [("dense", line.dense), *line.budgets]:
        flops, (ap, spread) = measure(rows, "flops").mean, _percent(measure(rows, metric))
        if flops is None or math.isnan(ap) or any((flops / 1e9, ap) == (point.x, point.y) for point in known):
            continue
        hollow: dict[str, Any] = {"markerfacecolor": "white"} if budget == "dense" else {}
        axis.errorbar([flops / 1e9], [ap], yerr=[spread], capsize=3, **mark, **hollow)
        points.append(Point(flops / 1e9, ap, budget, mark["color"]))
    axis.errorbar([], [], label=line.name, **mark)
    return points


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(cost, gain) points that no other point beats: none costs less, or the same, and gains at least as much."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def draw_classes(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP of each class, dense and at each ratio; beyond MAX_CLASSES those that change most."""
    shown, ratios = lines[:MAX_PANELS], _bar_ratios(layout, lines)
    figure, axes = _panels(len(shown), 10.0, 2.6, stacked=True)
    for axis, line in zip(axes, shown, strict=True):
        names = layout.classes or class_names(line.dense)
        paths = {name: f"per_class/{name}/{layout.metrics[0]}" for name in names}
        kept = _most_changed(line, paths)
        _bars(axis, line, {name: paths[name] for name in kept}, layout, ratios)
        left = f" ({len(kept)} of {len(names)} classes: those that change most)" if len(kept) < len(names) else ""
        axis.set_title(line.name + left, fontsize=10, loc="left")
        if len(kept) > 8:
            for text in axis.get_xticklabels():
                text.set(rotation=40, ha="right", rotation_mode="anchor")
    _legend(axes[0], lines, shown)
    return figure


def _most_changed(line: Series, paths: dict[str, str]) -> list[str]:
    if len(paths) <= MAX_CLASSES:
        return list(paths)
    last = line.at(line.ratios[-1])
    change = {
        name: abs(_percent(measure(last, p))[0] - _percent(measure(line.dense, p))[0]) for name, p in paths.items()
    }
    most = set(sorted((n for n in change if change[n] == change[n]), key=lambda n: -change[n])[:MAX_CLASSES])
    return [name for name in paths if name in most]


def draw_sizes(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP by object size (COCO's areas: below 32², to 96², above), dense and at each ratio."""
    shown, ratios = lines[:MAX_PANELS], _bar_ratios(layout, lines)
    figure, axes = _panels(len(shown), 7.0, 2.8, stacked=True)
    for axis, line in zip(axes, shown, strict=True):
        _bars(axis, line, {COLUMNS[metric].label: metric for metric in layout.metrics}, layout, ratios)
        axis.set_title(line.name, fontsize=10, loc="left")
    _legend(axes[0], lines, shown)
    return figure


def _bars(axis: Axes, line: Series, values: dict[str, str], layout: FigureLayout, ratios: Sequence[float]) -> None:
    """One group per value, one bar per ratio; a group without any figure says "none"."""
    width = 0.8 / len(ratios)
    found = [[_percent(measure(line.at(ratio), path)) for path in values.values()] for ratio in ratios]
    for i, (ratio, bars) in enumerate(zip(ratios, found, strict=True)):
        x = [k - 0.4 + (i + 0.5) * width for k in range(len(values))]
        heights, spreads = zip(*bars, strict=True)
        style: dict[str, Any] = {"color": BARS[i % len(BARS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        name = f"{100 * ratio:.4g} % removed" if ratio else "dense"
        axis.bar(x, heights, width, yerr=spreads if any(spreads) else None, label=name, **style)
    empty = [all(math.isnan(column[k][0]) for column in found) for k in range(len(values))]
    axis.set_xticks(range(len(values)), [f"{n} (none)" if e else n for n, e in zip(values, empty, strict=True)])
    axis.set(ylabel=f"{COLUMNS[layout.metrics[0]].label if len(layout.metrics) == 1 else 'AP'} × 100", ylim=(0, None))
    axis.grid(axis="x", visible=False)
    axis.margins(x=0.01)


def _bar_ratios(layout: FigureLayout, lines: Sequence[Series]) -> list[float]:
    """0 and the ratios to show, the same in every panel so that a colour means one ratio. More than four bars beside
    each other cannot be read: then the paper's ratios, or the nearest measured."""
    found = sorted({ratio for line in lines for ratio in line.ratios} - {0.0})
    if not layout.ratios and len(found) > 4:
        found = sorted({min(found, key=lambda ratio: abs(ratio - papers)) for papers in (0.2, 0.5, 0.7)})
    return [0.0, *(layout.ratios or found)]


def _legend(axis: Axes, lines: Sequence[Series], shown: Sequence[Series]) -> None:
    left = f"{len(lines) - len(shown)} more not drawn" if len(lines) > len(shown) else None
    axis.legend(fontsize=8, ncols=5, loc="lower right", bbox_to_anchor=(1, 1), title=left, frameon=False)


KINDS: dict[str, Callable[[FigureLayout, Sequence[Series]], Figure]] = {
    "curve": draw_curve,
    "pareto": draw_pareto,
    "class_bars": draw_classes,
    "size_bars": draw_sizes,
}


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """NAME.png and NAME.pdf; the same records give the same bytes (no dates inside)."""
    paths = folder / f"{name}.png", folder / f"{name}.pdf"
    choices: tuple[dict[str, Any], ...] = ({"dpi": 150}, {"metadata": {"CreationDate": None}})
    for path, options in zip(paths, choices, strict=True):
        stream = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(stream, format=path.suffix[1:], **options)
        write_atomically(path, stream.getvalue())
    return paths
