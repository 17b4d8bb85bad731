"""Accuracy against cost: FLOPs, and latency machine by machine."""

import pytest

from dcodp.report import figures
from dcodp.report.layouts import FigureLayout
from dcodp.report.pareto import Panel, panels_of, pareto_front
from dcodp.report.query import measurements
from dcodp.report.series import series_of

FLOPS = FigureLayout("f", "T", "pareto", ("map50_95",))
LATENCY = FigureLayout("l", "T", "pareto", ("map50_95",), against="latency_ms")


def panels(layout, records) -> list[Panel]:
    return panels_of(layout, series_of(layout, measurements(records)))


def places(panel: Panel) -> dict:
    return {(net.line, net.budget): (pytest.approx(net.cost), pytest.approx(net.gain)) for net in panel.nets}


def test_pareto_front():
    points = [(3, 30), (1, 10), (2, 30), (4, 29), (2, 20), (5, 31)]
    assert pareto_front(points) == [(1, 10), (2, 30), (5, 31)]
    assert pareto_front([]) == []


def test_nets_stand_at_their_flops_and_the_dense_net_of_several_methods_stands_once(cell):
    (panel,) = panels(FLOPS, [cell(), cell(importance="l1", aps=(0.4, 0, 0.41))])
    assert places(panel) == {
        ("YOLOv8n, dcodp", "dense"): (8, 40),
        ("YOLOv8n, dcodp", "50 %"): (2.4, 38),
        ("YOLOv8n, l1", "50 %"): (2.4, 41),
    }
    assert (panel.title, panel.cost) == ("", "FLOPs (G)") and panel.front == [(pytest.approx(2.4), pytest.approx(41))]


def test_times_of_different_machines_never_share_a_panel(cell, evaluation):
    gpu = {"device": "Some GPU", "threads": None, "runs": 20}
    dense = evaluation(0.4, latency=gpu, latency_ms=4.0)
    small = evaluation(0.3, "finetuned", latency=gpu, latency_ms=1.5)
    first, second = panels(LATENCY, [cell(), cell(seed=1, dense=dense, finetuned=small)])
    assert (first.title, second.title) == ("PyTorch, Some GPU", "PyTorch, Test CPU, 1 thread")
    assert places(first) == {("YOLOv8n", "dense"): (4, 40), ("YOLOv8n", "50 %"): (1.5, 30)}
    assert places(second) == {("YOLOv8n", "dense"): (40, 40), ("YOLOv8n", "50 %"): (20, 38)}


def test_the_figure_has_an_axis_for_each_machine_in_milliseconds(cell, evaluation):
    other = {"latency": {"device": "Some GPU"}, "latency_ms": 1.5}
    frame = measurements([cell(finetuned=evaluation(0.3, "finetuned", **other))])
    axes = figures.draw(LATENCY, frame).axes
    assert [axis.get_title(loc="left") for axis in axes] == ["PyTorch, Some GPU", "PyTorch, Test CPU, 1 thread"]
    assert [axis.get_xlabel() for axis in axes] == ["time of one image (ms)"] * 2
    (marker,) = (line for line in axes[0].lines if list(line.get_xdata()) == [1.5] and line.get_marker() == "o")
    assert list(marker.get_ydata()) == [pytest.approx(30)]


def test_without_times_there_is_no_figure_of_them(cell, evaluation):
    blocks = {stage: evaluation(0.4, latency_ms=None, latency=None) for stage in ("dense", "pruned", "finetuned")}
    frame = measurements([cell(**blocks)])
    assert figures.draw(LATENCY, frame) is None and figures.draw(FLOPS, frame) is not None
