"""Patterns of a coupling graph as pictures: boxes for layers, arrows from parents, one colour for each group."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from dcodp.files import replacing
from dcodp.graph.coupling import CouplingGraph
from dcodp.graph.view.patterns import Pattern, find_patterns

# Light enough for black letters; the hues are Okabe and Ito's, told apart also by the colour-blind.
COLOURS = ("#7CC4EE", "#F0B83E", "#5CC9A7", "#F4EA7A", "#E0A3C6", "#FF9E6B", "#AEB8F2", "#C9E4F5", "#F9E2B4", "#BCE6D8",
           "#F1D5E4", "#FFD3BC")  # fmt: skip
FROZEN = "#D0D0D0"
WIDTH, HEIGHT = 2.9, 0.56  # of a box, in inches
ACROSS, DOWN = 3.5, 1.05  # from box to box

Places = dict[str, tuple[float, float]]  # layer → centre of its box


def draw_patterns(graph: CouplingGraph, folder: Path) -> list[Path]:
    """Writes `residual`, `elan`, `repconv` and `fpn`, each as SVG and PNG, as far as the net has them."""
    written = []
    for pattern in find_patterns(graph):
        figure = draw_pattern(graph, pattern)
        for kind in ("svg", "png"):
            path = folder / f"{pattern.name}.{kind}"
            with replacing(path) as stream:
                figure.savefig(stream, format=kind, bbox_inches="tight", dpi=150)
            written.append(path)
    return written


def draw_pattern(graph: CouplingGraph, pattern: Pattern) -> Figure:
    """The pattern's layers from top to bottom. Layers of one colour lose the same channels; grey ones lose none."""
    places = arrange(graph, pattern.layers)
    xs, ys = zip(*places.values(), strict=True)
    figure = Figure(figsize=(max(xs) - min(xs) + ACROSS + 0.8, max(ys) - min(ys) + 2 * DOWN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(min(xs) - ACROSS / 2 - 0.4, max(xs) + ACROSS / 2 + 0.4), ylim=(max(ys) + DOWN, min(ys) - DOWN))
    axes.axis("off")
    colours = colours_of(graph, pattern.layers)
    prefix = _common_prefix(pattern.layers)
    where = f" in {prefix[:-1]}" if prefix else ""
    axes.text(min(xs) - WIDTH / 2, min(ys) - 0.85, f"{pattern.title}{where}", fontsize=10.5, weight="bold")
    axes.text(min(xs) - WIDTH / 2, min(ys) - 0.6, "layers of one colour lose the same channels", fontsize=8.5)
    for layer in pattern.layers:
        for parent in graph.parents[layer]:
            if parent in places:
                _arrow(axes, places, parent, layer)
    for layer, (x, y) in places.items():
        _box(axes, x, y, layer.removeprefix(prefix), _channels(graph, layer), colours[layer])
    return figure


def arrange(graph: CouplingGraph, layers: tuple[str, ...]) -> Places:
    """Rows by the longest way from the top; layers of one row side by side, each below its parents where it can be."""
    rows: dict[str, int] = {}
    for layer in layers:  # in order of execution: parents come first
        rows[layer] = 1 + max((rows[p] for p in graph.parents[layer] if p in rows), default=-1)
    for layer in reversed(layers):  # those without parents here sit right above their first reader
        readers = [rows[x] for x in layers if layer in graph.parents[x]]
        if readers and not any(p in rows for p in graph.parents[layer]):
            rows[layer] = min(readers) - 1
    places: Places = {}
    for row in sorted(set(rows.values())):
        members = [x for x in layers if rows[x] == row]
        above = {x: [places[p][0] for p in graph.parents[x] if p in places] for x in members}
        reading = sorted((x for x in members if above[x]), key=lambda x: _middle(above[x]))
        fresh = [x for x in members if not above[x]]
        centre = _middle([_middle(above[x]) for x in reading])
        left = centre - (len(reading or fresh) - 1) / 2 * ACROSS
        for i, layer in enumerate(reading or fresh):
            places[layer] = (left + i * ACROSS, row * DOWN)
        for i, layer in enumerate(fresh if reading else ()):  # beside the layers that go on from the row above
            places[layer] = (left - (i + 1) * ACROSS, row * DOWN)
    return places


def _middle(values: list[float]) -> float:
    return median(values) if values else 0.0


def colours_of(graph: CouplingGraph, layers: tuple[str, ...]) -> dict[str, str]:
    """One colour per coupling group, in order of appearance; layers without prunable filters are grey."""
    taken: dict[str, str] = {}
    chosen = {}
    for layer in layers:
        groups = graph.group_of(layer)
        if groups:
            taken.setdefault(groups[0].name, COLOURS[len(taken) % len(COLOURS)])
        chosen[layer] = taken[groups[0].name] if groups else FROZEN
    return chosen


def _channels(graph: CouplingGraph, layer: str) -> str:
    groups = graph.group_of(layer)
    return " + ".join(f"{g.channels} channels" for g in groups) or "stays as it is"


def _box(axes: Any, x: float, y: float, name: str, text: str, colour: str) -> None:
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    axes.add_patch(
        FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.1", fc=colour, ec="black", lw=0.8)
    )
    axes.text(x, y - 0.09, name, ha="center", va="center", fontsize=8.5, weight="bold")
    axes.text(x, y + 0.14, text, ha="center", va="center", fontsize=7.5)


def _arrow(axes: Any, places: Places, parent: str, layer: str) -> None:
    """Straight to the next row; past the side of the boxes in between where rows are skipped."""
    (x0, y0), (x1, y1) = places[parent], places[layer]
    skipped = round((y1 - y0) / DOWN) - 1
    side = -1 if x0 < x1 else 1  # left or right of the column
    start, end, bend = (x0, y0 + HEIGHT / 2), (x1, y1 - HEIGHT / 2), 0.0
    if skipped > 0:
        end = (x1 + side * WIDTH / 2, y1)
        start = (x0 + side * WIDTH / 2, y0)
        bend = -side * (0.75 / (skipped + 1) + 0.12)
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.0, "color": "#333333", "shrinkA": 0, "shrinkB": 1}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend:.2f}", clip_on=False, **style))


def _common_prefix(layers: tuple[str, ...]) -> str:
    """The modules that all layers are in, with the last dot."""
    parts = [layer.split(".")[:-1] for layer in layers]
    shared = 0
    while all(len(p) > shared and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return "".join(f"{p}." for p in parts[0][:shared])
