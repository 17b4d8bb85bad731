"""Names beside points: none covers a point or another name, and none is written twice at one place."""

import itertools

import pytest
from matplotlib.figure import Figure

from dcodp.report.point_names import Point, write_names

CROWD = [(0, 0), (0.02, 0.02), (0.04, 0.0), (1, 1), (0.5, 0.5), (0.51, 0.5), (0.52, 0.5)]


def plot(points):
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    for point in points:
        axis.plot([point.x], [point.y], "o")
    write_names(figure, axis, points)
    return figure, axis


def test_names_overlap_nothing_and_stay_inside():
    points = [Point(x, y, f"{i} %", "black") for i, (x, y) in enumerate(CROWD)]
    _, axis = plot(points)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) >= 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for point in points:
        x, y = axis.transData.transform((point.x, point.y))
        assert not any(box.contains(x, y) for box in boxes)
    inside = axis.get_window_extent()
    assert all(inside.contains(*corner) for box in boxes for corner in box.get_points())


def test_a_name_stands_once_where_points_share_their_x():
    points = [Point(10, y, "50 %", "black") for y in (1, 2, 3)] + [Point(20, 2, "50 %", "black")]
    _, axis = plot(points)
    assert [(text.get_text(), text.xy) for text in axis.texts] == [("50 %", (10, 1)), ("50 %", (20, 2))]


def test_names_keep_off_curves_where_there_is_room():
    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    (curve,) = axis.plot([0, 1, 2], [0, 1, 2])
    axis.margins(0.2)
    write_names(figure, axis, [Point(1, 1, "half", "black")])
    (name,) = axis.texts
    path = curve.get_transform().transform_path(curve.get_path())
    assert not path.intersects_bbox(name.get_window_extent(), filled=False)


def test_nothing_moves_when_the_figure_is_drawn():
    figure, axis = plot([Point(x, y, "a long name", "black") for x, y in CROWD])
    before = axis.get_position().bounds
    figure.draw_without_rendering()
    assert axis.get_position().bounds == pytest.approx(before)
