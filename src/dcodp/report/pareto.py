"""Accuracy against what a net costs: FLOPs, or the time of one image, one panel for each runtime and machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dcodp.report import drawing
from dcodp.report.layouts import FigureLayout
from dcodp.report.point_names import Point, write_names
from dcodp.report.query import measure
from dcodp.report.series import Series

COSTS = {"flops": ("FLOPs (G)", 1e-9), "latency_ms": ("time of one image (ms)", 1.0)}  # in the records' own unit
DENSE = "dense"  # the budget of a net that is not pruned
RUNTIME = "PyTorch"  # what records are timed in


@dataclass(frozen=True)
class Net:
    """One marker: the `gain` (AP × 100) and its spread over seeds, at a cost in the panel's unit."""

    line: str  # detector and method
    budget: str
    cost: float
    gain: float
    spread: float = 0.0

    @property
    def place(self) -> tuple[float, float]:
        return self.cost, self.gain


@dataclass(frozen=True)
class Panel:
    title: str  # runtime and machine; "" where there are none to tell apart
    cost: str
    nets: tuple[Net, ...]

    @property
    def front(self) -> list[tuple[float, float]]:
        return pareto_front([net.place for net in self.nets])


def panels_of(layout: FigureLayout, lines: Sequence[Series]) -> list[Panel]:
    """Those with anything in them. Times of different machines never share a panel."""
    label, factor = COSTS[layout.against]
    metric = layout.metrics[0]
    if layout.against == "flops":
        found = [Panel("", label, tuple(_nets(lines, metric, "flops", factor)))]
    else:
        timed = pd.concat([rows.dropna(subset=[layout.against]) for line in lines for rows in (line.dense, line.later)])
        found = [
            Panel(f"{RUNTIME}, {machine}", label, tuple(_nets(lines, metric, layout.against, factor, machine)))
            for machine in sorted(set(timed["hardware"]))
        ]
    return [panel for panel in found if panel.nets][: drawing.MAX_PANELS]


def _nets(lines: Sequence[Series], metric: str, cost: str, factor: float, machine: str | None = None) -> Iterator[Net]:
    """What is known already, the dense net of several methods, comes once."""
    known: set[tuple[float, float]] = set()
    for line in lines:
        for budget, rows in [(DENSE, line.dense), *line.budgets]:
            rows = rows if machine is None else rows.loc[rows["hardware"] == machine]
            spent, (gain, spread) = measure(rows, cost).mean, drawing.percent(measure(rows, metric))
            if spent is None or math.isnan(gain):
                continue
            net = Net(line.name, budget, spent * factor, gain, spread)
            if net.place not in known:
                known.add(net.place)
                yield net


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(cost, gain) points that no other point beats: none costs less, or the same, and gains at least as much."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def draw(panels: Sequence[Panel], gain: str, title: str, caption: str) -> Figure:
    """Dense nets are hollow, the front joins what nothing else beats in both; a mark is one line in every panel."""
    with matplotlib.rc_context(drawing.STYLE):
        figure, axes = drawing.panels(len(panels), 7.0, 4.2, stacked=True)
        marks = {name: drawing.mark(i) for i, name in enumerate(dict.fromkeys(n.line for p in panels for n in p.nets))}
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, marks)
            axis.set(xlabel=panel.cost, ylabel=gain)
            axis.set_title(panel.title, fontsize=10, loc="left")
        drawing.titled(figure, title, caption)
        for axis, panel in zip(axes, panels, strict=True):
            points = [Point(*net.place, net.budget, marks[net.line]["color"]) for net in panel.nets]
            write_names(figure, axis, points)
    return figure


def _draw(axis: Axes, panel: Panel, marks: dict[str, dict[str, Any]]) -> None:
    for net in panel.nets:
        hollow: dict[str, Any] = {"markerfacecolor": "white"} if net.budget == DENSE else {}
        look: dict[str, Any] = {**marks[net.line], "linestyle": "none", **hollow}
        axis.errorbar([net.cost], [net.gain], yerr=[net.spread], capsize=3, **look)
    lines = list(dict.fromkeys(net.line for net in panel.nets))
    for name in lines:
        look = {**marks[name], "linestyle": "none", "label": name}
        axis.errorbar([], [], **look)
    costs, gains = zip(*panel.front, strict=True)
    axis.plot(costs, gains, color="#777777", linewidth=1, zorder=0, label="Pareto front")
    if max(net.cost for net in panel.nets) > 8 * min(net.cost for net in panel.nets):
        _logarithmic(axis)
    axis.margins(x=0.12, y=0.12)
    drawing.key(axis, len(lines))


def _logarithmic(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
