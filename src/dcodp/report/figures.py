"""Figures from rows of measurements: PNG and PDF; how they look stands in drawing.py."""

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

from dcodp.files import write_atomically
from dcodp.report import pareto
from dcodp.report.drawing import MAX_PANELS, STYLE, key, mark, panels, percent, titled
from dcodp.report.layouts import COLUMNS, FigureLayout
from dcodp.report.notes import data_name, schedules
from dcodp.report.query import class_names, measure
from dcodp.report.series import Series, series_of

BARS = ("#333333", "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#999999")
HATCHES = ("", "", "//", "..", "xx", "\\\\", "--", "oo")
MAX_CLASSES = 24


def draw(layout: FigureLayout, frame: pd.DataFrame) -> Figure | None:
    """None where no record holds anything to draw."""
    lines = series_of(layout, frame)
    if not drawable(layout, lines):
        return None
    with matplotlib.rc_context(STYLE):
        return titled(KINDS[layout.kind](layout, lines), layout.title, _caption(lines))


def drawable(layout: FigureLayout, lines: Sequence[Series]) -> bool:
    """Whether there is anything to draw: curves and bars compare ratios, and leave out nets that have a target."""
    if layout.kind == "pareto":
        return bool(lines) and bool(pareto.panels_of(layout, lines))
    return any(len(line.ratios) > 1 for line in lines)


def _caption(lines: Sequence[Series]) -> str:
    """The images that the figures stand on, and the schedules."""
    rows = [row for line in lines for row in line.later.to_dict("records")]
    return "; ".join(dict.fromkeys(map(data_name, rows))) + "\n" + schedules(rows)


def draw_pareto(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP against FLOPs, or against latency with a panel for each machine."""
    gain = f"{COLUMNS[layout.metrics[0]].label} × 100"
    return pareto.draw(pareto.panels_of(layout, lines), gain, layout.title, _caption(lines))


def draw_curve(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP of the fine-tuned net against the share of channels removed; 0 % is the dense net."""
    figure, axes = panels(len(layout.metrics), 5.0, 3.6, stacked=False)
    for axis, metric in zip(axes, layout.metrics, strict=True):
        for i, line in enumerate(lines):
            points = [(100 * r, *percent(measure(line.at(r), metric))) for r in line.ratios]
            x, y, spread = zip(*points, strict=True)
            axis.errorbar(x, y, yerr=spread, label=line.name, capsize=3, **mark(i))
        axis.set(xlabel="channels removed from every group (%)", ylabel=f"{COLUMNS[metric].label} × 100")
    key(axes[-1], len(lines))
    return figure


def draw_classes(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP of each class, dense and at each ratio; beyond MAX_CLASSES those that change most."""
    shown, ratios = lines[:MAX_PANELS], bar_ratios(layout, lines)
    figure, axes = panels(len(shown), 10.0, 2.6, stacked=True)
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
    change = {name: abs(percent(measure(last, p))[0] - percent(measure(line.dense, p))[0]) for name, p in paths.items()}
    most = set(sorted((n for n in change if change[n] == change[n]), key=lambda n: -change[n])[:MAX_CLASSES])
    return [name for name in paths if name in most]


def draw_sizes(layout: FigureLayout, lines: Sequence[Series]) -> Figure:
    """AP by object size (COCO's areas: below 32², to 96², above), dense and at each ratio."""
    shown, ratios = lines[:MAX_PANELS], bar_ratios(layout, lines)
    figure, axes = panels(len(shown), 7.0, 2.8, stacked=True)
    for axis, line in zip(axes, shown, strict=True):
        _bars(axis, line, {COLUMNS[metric].label: metric for metric in layout.metrics}, layout, ratios)
        axis.set_title(line.name, fontsize=10, loc="left")
    _legend(axes[0], lines, shown)
    return figure


def _bars(axis: Axes, line: Series, values: dict[str, str], layout: FigureLayout, ratios: Sequence[float]) -> None:
    """One group per value, one bar per ratio; a group without any figure says "none"."""
    width = 0.8 / len(ratios)
    found = [[percent(measure(line.at(ratio), path)) for path in values.values()] for ratio in ratios]
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


def bar_ratios(layout: FigureLayout, lines: Sequence[Series]) -> list[float]:
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
