"""Stock YOLOv8 prunes exactly: the oracle in float64 with live signals, at every ratio, with and without rounding."""

import pytest
import torch

import dcodp
from dcodp import _ultralytics
from dcodp.testing import assert_equivalent, enliven, relative_error, run


def predictions(result):
    return result[0]


def build(variant):
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel(f"yolov8{variant}.yaml", verbose=False).double().eval()
    x = (torch.rand(1, 3, 64, 64, dtype=torch.float64),)
    return enliven(model, x), x


@pytest.fixture(scope="module", params=["n", pytest.param("s", marks=pytest.mark.slow)])
def traced(request):
    torch.manual_seed(0)
    model, x = build(request.param)
    return model, x, dcodp.trace(model, x, outputs=predictions)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
def test_pruned_is_the_dense_net_without_the_channels(traced, ratio, round_to):
    model, x, graph = traced
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio, round_to=round_to)
    small = dcodp.prune(model, plan)
    assert assert_equivalent(model, small, plan, x, outputs=predictions) <= 1e-11
    assert relative_error(run(model, x, predictions)[0], run(small, x, predictions)[0]) > 1e-3
    assert all(m.c == m.cv2.conv.in_channels // (2 + len(m.m)) for m in small.modules() if hasattr(m, "forward_split"))


def test_a_swapped_pair_of_input_channels_shows(traced):
    model, x, graph = traced
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, 0.2)
    small = dcodp.prune(model, plan)
    weight = small.get_parameter("model.4.cv1.conv.weight").data
    weight[:, [0, 1]] = weight[:, [1, 0]]
    with pytest.raises(AssertionError, match="differs by"):
        assert_equivalent(model, small, plan, x, outputs=predictions, tolerance=1e-6)


def test_the_groups_of_yolov8n():
    model, x = build("n")
    graph = dcodp.trace(model, x, outputs=predictions)
    assert len(graph.groups) == 51 and sum(g.channels for g in graph.groups) == 4432
    assert {f.layer.split(".")[1] for f in graph.frozen} == {"22"}
    total = sum(p.numel() for p in model.parameters())
    for ratio, removed in ((0.2, 0.36), (0.5, 0.75), (0.7, 0.91)):
        plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio)
        left = sum(p.numel() for p in dcodp.prune(model, plan).parameters())
        assert 1 - left / total == pytest.approx(removed, abs=0.01)


def test_a_pruned_net_runs_at_other_sizes_and_fuses(traced):
    model, _, graph = traced
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, 0.5)
    small = dcodp.prune(model, plan)
    other = torch.rand(2, 3, 96, 128, dtype=torch.float64)
    assert_equivalent(model, small, plan, (other,), outputs=predictions)
    before = run(small, (other,), predictions)[0]
    fused = small.fuse(verbose=False)
    assert relative_error(before, run(fused, (other,), predictions)[0]) < 1e-9
