"""Figures in words."""

import re

import pytest

from dcodp.report.alt_texts import MOST_LINES, alt_text
from dcodp.report.layouts import FigureLayout, default_figures
from dcodp.report.query import measurements


@pytest.fixture
def frame(cell):
    losses = {0.2: 0.39, 0.5: 0.37}
    return measurements([cell(ratio=ratio, aps=(0.4, 0, ap)) for ratio, ap in losses.items()])


def test_a_curve_is_told_value_by_value(frame):
    told = alt_text(FigureLayout("c", "Ours", "curve", ("map50_95",)), frame)
    curve = "YOLOv8n: 40.0 dense, 39.0 at 20 %, 37.0 at 50 %."
    assert told == f"Ours. mAP50-95 × 100 by the share of channels removed. {curve}"


def test_a_pareto_figure_is_told_with_its_front(frame):
    told = alt_text(FigureLayout("p", "Ours", "pareto", ("map50_95",), against="latency_ms"), frame)
    nets = "YOLOv8n: dense 40.0 at 40, 20 % 39.0 at 20, 50 % 37.0 at 20."
    front = "On the Pareto front: YOLOv8n dense; YOLOv8n 20 %."
    machine = "PyTorch, Test CPU, 1 thread"
    assert told == f"Ours. mAP50-95 × 100 against time of one image (ms). {machine}: {nets} {front}"


def test_bars_are_told_ratio_by_ratio_and_many_are_summed_up(cell, frame):
    told = alt_text(FigureLayout("b", "Ours", "class_bars", ("map50",)), frame)
    start = "Ours. Bars for the dense net and each ratio, mAP50 × 100."
    assert told.startswith(f"{start} YOLOv8n: dense bird 56.0, cat 64.0; ")
    record = cell()
    for stage in record.stages:
        stage["per_class"] = {f"c{i}": {"map50": 0.1 * i} for i in range(10)}
    told = alt_text(FigureLayout("b", "Ours", "class_bars", ("map50",)), measurements([record]))
    assert "at 50 % mean 45.0 of 10, from 0.0 (c0) to 90.0 (c9)." in told


def test_sizes_without_objects_are_left_out(frame):
    told = alt_text(FigureLayout("s", "Ours", "size_bars", ("ap_small", "ap_large")), frame)
    assert "dense APS 20.0; at 20 % APS 19.5" in told and "APL" not in told


def test_many_lines_are_cut(cell):
    frame = measurements([cell(importance=f"criterion {i}") for i in range(MOST_LINES + 3)])
    told = alt_text(FigureLayout("c", "Ours", "curve", ("map50",)), frame)
    assert told.count("at 50 %") == MOST_LINES and told.endswith("And 3 more.")


def test_every_default_figure_says_more_than_its_title(frame):
    for layout in default_figures("voc2007"):
        title, said, values = alt_text(layout, frame).partition(f"{layout.title}. ")
        assert not title and said and re.search(r"\d\d\.\d", values)
