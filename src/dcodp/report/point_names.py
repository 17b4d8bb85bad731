"""Names beside the points of a scatter plot, placed where they cover neither a point nor another name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import Bbox

MARKER = 5.0  # points from the middle of a marker to its edge
PLACES: tuple[dict[str, Any], ...] = (
    {"xytext": (6, 4), "ha": "left", "va": "bottom"},
    {"xytext": (6, -4), "ha": "left", "va": "top"},
    {"xytext": (-6, 4), "ha": "right", "va": "bottom"},
    {"xytext": (-6, -4), "ha": "right", "va": "top"},
    {"xytext": (0, 8), "ha": "center", "va": "bottom"},
    {"xytext": (0, -8), "ha": "center", "va": "top"},
)
SAME = 0.03  # points whose x differs by less share one name


@dataclass(frozen=True)
class Point:
    """One marker at (x, y) in data coordinates; `name` is written beside it in `colour`."""

    x: float
    y: float
    name: str
    colour: str


def write_names(figure: Figure, axis: Axes, points: Sequence[Point]) -> None:
    """Call it last, when axes and legends have their places. A name without a free place is left out, and so is a
    name that a point at the same x bears already."""
    figure.draw_without_rendering()
    taken = [_marker(figure, axis, point) for point in points] + [legend.get_window_extent() for legend in _keys(axis)]
    for point in _distinct(points):
        if (box := _placed(axis, point, taken, _lines(axis)) or _placed(axis, point, taken, [])) is not None:
            taken.append(box)


def _placed(axis: Axes, point: Point, taken: Sequence[Bbox], lines: Sequence[Path]) -> Bbox | None:
    """Writes the name at the first place that is free, and returns what it takes."""
    for place in PLACES:
        text = axis.annotate(
            point.name, (point.x, point.y), textcoords="offset points", fontsize=7.5, color=point.colour, **place
        )
        box = Bbox(text.get_window_extent().get_points())
        if _is_free(box, axis, taken) and not any(line.intersects_bbox(box, filled=False) for line in lines):
            text.set_in_layout(False)  # the axes are not to move any more
            return box
        text.remove()
    return None


def _distinct(points: Sequence[Point]) -> Iterator[Point]:
    seen: list[Point] = []
    for point in points:
        if not any(other.name == point.name and abs(other.x - point.x) <= SAME * other.x for other in seen):
            seen.append(point)
            yield point


def _marker(figure: Figure, axis: Axes, point: Point) -> Bbox:
    x, y = axis.transData.transform((point.x, point.y))
    size = MARKER * figure.dpi / 72
    return Bbox([[x - size, y - size], [x + size, y + size]])


def _keys(axis: Axes) -> list[Any]:
    legend = axis.get_legend()
    return [] if legend is None else [legend]


def _lines(axis: Axes) -> list[Path]:
    """Curves in window coordinates; markers alone are no curves."""
    paths = [(line, line.get_path()) for line in axis.get_lines() if line.get_linestyle() != "None"]
    return [line.get_transform().transform_path(path) for line, path in paths if len(path) > 1]


def _is_free(box: Bbox, axis: Axes, taken: Sequence[Bbox]) -> bool:
    inside = axis.get_window_extent()
    within = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    return within and not any(box.overlaps(other) for other in taken)
