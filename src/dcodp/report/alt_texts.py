"""What a figure shows, in words: for those who do not see it. Long figures are summed up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from dcodp.report.drawing import MAX_PANELS, percent
from dcodp.report.figures import bar_ratios
from dcodp.report.layouts import COLUMNS, FigureLayout
from dcodp.report.pareto import Net, Panel, panels_of
from dcodp.report.query import class_names, measure
from dcodp.report.series import Series, series_of

MOST_LINES, MOST_VALUES = 8, 6  # beyond which one stops listening


def alt_text(layout: FigureLayout, frame: pd.DataFrame) -> str:
    """The title, what is on the axes, and the values line by line."""
    lines = series_of(layout, frame)
    if layout.kind == "pareto":
        return of_panels(layout.title, COLUMNS[layout.metrics[0]].label, panels_of(layout, lines))
    told = _curves(layout, lines) if layout.kind == "curve" else _bars(layout, lines)
    return " ".join([f"{layout.title}.", *told])


def _curves(layout: FigureLayout, lines: Sequence[Series]) -> Iterator[str]:
    for metric in layout.metrics:
        told = [f"{line.name}: {_at_ratios(line, metric)}" for line in lines if len(line.ratios) > 1]
        yield f"{COLUMNS[metric].label} × 100 by the share of channels removed. {_some(told)}"


def _at_ratios(line: Series, metric: str) -> str:
    found = [(_ratio(ratio), percent(measure(line.at(ratio), metric))[0]) for ratio in line.ratios]
    return ", ".join(f"{gain:.1f} {at}" for at, gain in found if not math.isnan(gain))


def _ratio(ratio: float) -> str:
    return f"at {100 * ratio:.4g} %" if ratio else "dense"


def _some(told: Sequence[str]) -> str:
    more = f" And {len(told) - MOST_LINES} more." if len(told) > MOST_LINES else ""
    return "; ".join(told[:MOST_LINES]) + "." + more


def _bars(layout: FigureLayout, lines: Sequence[Series]) -> Iterator[str]:
    yield f"Bars for the dense net and each ratio, {'AP' if len(layout.metrics) > 1 else _label(layout)} × 100."
    ratios = bar_ratios(layout, lines)
    for line in lines[:MAX_PANELS]:
        paths = _groups(layout, line)
        found = {r: {name: percent(measure(line.at(r), path))[0] for name, path in paths.items()} for r in ratios}
        told = [f"{_ratio(ratio)} {text}" for ratio, values in found.items() if (text := _values(values))]
        yield f"{line.name}: {'; '.join(told)}."


def _label(layout: FigureLayout) -> str:
    return COLUMNS[layout.metrics[0]].label


def _groups(layout: FigureLayout, line: Series) -> dict[str, str]:
    """{group of bars: what is measured of it}: sizes or classes."""
    if layout.kind == "size_bars":
        return {COLUMNS[metric].label: metric for metric in layout.metrics}
    return {name: f"per_class/{name}/{layout.metrics[0]}" for name in layout.classes or class_names(line.dense)}


def _values(found: Mapping[str, float]) -> str:
    """ "bird 53.2, cat 60.8", or of many the mean and both ends; "" where nothing was measured."""
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    if len(known) <= MOST_VALUES:
        return ", ".join(f"{name} {value:.1f}" for name, value in known.items())
    low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    mean = sum(known.values()) / len(known)
    return f"mean {mean:.1f} of {len(known)}, from {known[low]:.1f} ({low}) to {known[high]:.1f} ({high})"


def of_panels(title: str, gain: str, panels: Sequence[Panel]) -> str:
    costs = " and ".join(dict.fromkeys(panel.cost for panel in panels))
    several = len(panels) > 1
    return " ".join([f"{title}.", f"{gain} × 100 against {costs}.", *(_panel(panel, several) for panel in panels)])


def _panel(panel: Panel, several: bool) -> str:
    lines = dict.fromkeys(net.line for net in panel.nets)
    told = _some([f"{line}: {', '.join(_net(net) for net in panel.nets if net.line == line)}" for line in lines])
    front = [f"{net.line} {net.budget}" for net in panel.nets if net.place in panel.front]
    name = panel.title or (panel.cost if several else "")
    return f"{name + ': ' if name else ''}{told} On the Pareto front: {_some(front)}"


def _net(net: Net) -> str:
    return f"{net.budget} {net.gain:.1f} at {net.cost:.3g}"
