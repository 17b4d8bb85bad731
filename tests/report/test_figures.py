"""Figures: the right numbers on the axes, nothing drawn of nothing, the same bytes every time."""

import pytest
from PIL import Image

from dcodp.report import build, figures
from dcodp.report.layouts import FigureLayout, default_figures
from dcodp.report.query import measurements
from dcodp.report.series import number_of_series, series_of


@pytest.fixture
def frame(cell):
    losses = {0.2: 0.39, 0.5: 0.37, 0.7: 0.3}
    return measurements([cell(ratio=r, aps=(0.4, 0, ap)) for r, ap in losses.items()] + [cell(importance="l1")])


def test_curve_starts_at_the_dense_net(frame):
    layout = FigureLayout("c", "Curve", "curve", ("map50_95",), {"importance": "dcodp"})
    axis = figures.draw(layout, frame).axes[0]
    x, y = axis.lines[0].get_data()
    assert list(x) == [0, 20, 50, 70] and list(y) == pytest.approx([40, 39, 37, 30])
    assert "%" in axis.get_xlabel() and axis.get_ylabel() == "mAP50-95 × 100"


def test_methods_are_told_apart_only_where_there_are_several(frame):
    both = series_of(FigureLayout("c", "", "curve", ("map50",)), frame)
    assert [line.name for line in both] == ["YOLOv8n, dcodp", "YOLOv8n, l1"]
    one = series_of(FigureLayout("c", "", "curve", ("map50",), {"importance": "l1"}), frame)
    assert [line.name for line in one] == ["YOLOv8n"]


def test_captions_say_subset(frame):
    figure = figures.draw(FigureLayout("c", "Curve", "curve", ("map50",)), frame)
    assert figure.get_supxlabel().startswith("VOC2007, 448-image subset\n100 + 20 epochs")


def test_classes_without_objects_are_named(cell):
    record = cell()
    for stage in (record.dense, record.finetuned):
        stage["per_class"]["dog"] = {"map50": -1, "map50_95": None}
    figure = figures.draw(FigureLayout("c", "", "class_bars", ("map50",)), measurements([record]))
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names == ["bird", "cat", "dog (none)"]
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[:2] == pytest.approx([56, 64]) and heights[3:5] == pytest.approx([53.2, 60.8])


def test_a_colour_means_one_ratio_in_every_panel(frame):
    figure = figures.draw(FigureLayout("c", "", "class_bars", ("map50",)), frame)
    dcodp, l1 = ([container[0].get_facecolor() for container in axis.containers] for axis in figure.axes)
    assert len(set(dcodp)) == 4 and dcodp == l1  # dense, 20, 50, 70 %; l1 was measured at 50 % only
    heights = [container[0].get_height() for container in figure.axes[1].containers]
    assert heights[2] == pytest.approx(53.2) and heights[1] != heights[1] and heights[3] != heights[3]


def test_many_classes_are_cut_to_those_that_change(cell):
    record = cell()
    for stage in record.stages:
        ap = 0.1 if stage["name"] == "finetuned" else 0.5
        stage["per_class"] = {f"c{i}": {"map50": ap if i < figures.MAX_CLASSES else 0.5} for i in range(80)}
    figure = figures.draw(FigureLayout("c", "", "class_bars", ("map50",)), measurements([record]))
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == [f"c{i}" for i in range(figures.MAX_CLASSES)]
    assert "24 of 80 classes" in figure.axes[0].get_title(loc="left")


def test_every_default_figure_is_written_the_same_twice(frame, tmp_path):
    sizes = {}
    for layout in default_figures("voc2007"):
        first = figures.save(figures.draw(layout, frame), tmp_path / "a", layout.name)
        if layout.kind == "curve":
            second = figures.save(figures.draw(layout, frame), tmp_path / "b", layout.name)
            assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
        with Image.open(first[0]) as image:
            sizes[layout.kind] = image.size
        assert first[1].read_bytes().startswith(b"%PDF")
    assert len(sizes) == 4 and all(min(size) > 400 for size in sizes.values())


def test_curves_and_bars_of_targets_alone_are_not_drawn(cell):
    """They compare ratios, of which there is none: nothing but the dense net would be left."""
    frame = measurements([cell(target="flops:0.5")])
    drawn = {layout.name: figures.draw(layout, frame) is not None for layout in default_figures("voc2007")}
    names = ("ratio", "flops", "latency", "classes", "sizes")
    assert drawn == {f"voc2007_{name}": name in ("flops", "latency") for name in names}


def test_nothing_measured_nothing_drawn(frame):
    layout = FigureLayout("c", "", "pareto", ("map50",), {"dataset": "coco2017"})
    assert figures.draw(layout, frame) is None
    assert figures.draw(layout, measurements([])) is None


def test_figures_that_nobody_could_read_are_drawn_when_they_are_declared_alone(frame, tmp_path, monkeypatch, caplog):
    declared = FigureLayout("mine", "", "curve", ("map50",))
    assert number_of_series(declared, frame) == len(series_of(declared, frame)) == 2
    monkeypatch.setattr(build, "MAX_SERIES", 1)
    with caplog.at_level("INFO", "dcodp.report.build"):
        drawn, paths = build._draw_all(tmp_path, [declared], frame)
    assert [figure.layout.name for figure in drawn] == ["mine"]
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", "mine.pdf"} == {path.name for path in paths}
    assert "voc2007_ratio" in caplog.text and "more than 1 series" in caplog.text
