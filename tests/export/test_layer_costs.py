"""Tables of layer costs: layers as they are called, fits, files, and a net's cost as the sum of what is left."""

import json

import numpy as np
import pytest
import torch
from nets import IMAGE, Mixed, chain

import dcodp
from dcodp.errors import InputError
from dcodp.export import LatencyCost, Machine
from dcodp.export.layer_costs import (
    LayerTable,
    fitted,
    measured_table,
    narrowings,
)
from dcodp.export.layer_sums import dense_counts, layers_cost, reads_cost
from dcodp.export.layers import Layer, layers_of, onnx_of
from dcodp.export.runtimes import open_onnx

MACHINE = Machine("made_up", 1)


def flops(layer, _machine=MACHINE):
    """A machine that takes a millisecond per multiply-accumulate."""
    positions = np.prod([-(-s // t) for s, t in zip(layer.size, layer.stride, strict=True)])
    if layer.transposed:
        positions = np.prod(layer.size)
    return float(layer.inputs * layer.outputs / layer.groups * np.prod(layer.kernel) * positions)


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    net = Mixed().eval()
    return net, dcodp.trace(net, (IMAGE,)), layers_of(net, IMAGE)


def test_layers_are_found_as_they_are_called(mixed):
    net, _, layers = mixed
    found = dict(layers)
    assert list(found) == ["stem", "left", "depth", "up", "head"]
    assert found["stem"] == Layer(3, 16, (3, 3), (2, 2), (1, 1), (1, 1), 1, (16, 16), False, "silu")
    assert found["depth"].groups == 16 and found["up"].transposed and found["up"].size == (8, 8)
    assert found["head"].size == (1, 1) and found["head"].activation == ""
    assert not any(module._forward_hooks for module in net.modules())


def test_on_a_machine_that_counts_flops_the_cost_is_flops(mixed):
    _, graph, layers = mixed
    table = measured_table([layer for _, layer in layers], MACHINE, milliseconds=flops)
    cost, chance = layers_cost(graph, layers, table), np.random.default_rng(0)
    dense = cost(dense_counts(graph)[None])[0]
    assert 2 * dense == pytest.approx(graph.flops(), rel=1e-6)
    for _ in range(3):
        kept = {g.name: range(int(chance.integers(1, g.channels + 1))) for g in graph.groups}
        counts = dense_counts(graph, kept)
        assert 2 * cost(counts[None])[0] == pytest.approx(graph.flops(kept), rel=1e-6)
        steps = np.ones(len(counts))
        for number in range(len(counts)):
            less = counts - np.eye(len(counts))[number]
            assert cost.without(counts, steps)[number] == pytest.approx(cost(less[None])[0])


def test_reads_follow_the_inputs_that_are_left(mixed):
    _, graph, layers = mixed
    reads = reads_cost(graph, layers)
    assert reads(dense_counts(graph)[None])[0] == 3 * 256 + 16 * 64 + 16 * 64 + 40 * 64 + 8


def test_fits_are_exact_where_they_can_be_and_never_fall():
    points = [(i, o, 0.5 + 0.01 * i + 0.02 * o + 0.003 * i * o) for i in (16, 32, 64) for o in (8, 64)]
    assert fitted(points) == pytest.approx([0.5, 0.01, 0.02, 0.003])
    noisy = fitted([(16, 16, 1.0), (32, 32, 0.9), (64, 64, 0.8)])
    assert (noisy >= 0).all()


def test_layers_are_timed_at_shares_of_their_channels():
    plain = Layer(64, 24, (3, 3), (1, 1), (1, 1), (1, 1), 1, (8, 8))
    pairs = {(n.inputs, n.outputs) for n in narrowings(plain)}
    assert pairs == {(i, o) for i in (16, 32, 64) for o in (6, 12, 24)}
    depthwise = Layer(64, 64, (3, 3), (1, 1), (1, 1), (1, 1), 64, (8, 8))
    assert [(n.inputs, n.outputs, n.groups) for n in narrowings(depthwise)] == [(n, n, n) for n in (16, 32, 64)]


def test_tables_are_completed_not_measured_anew(mixed, tmp_path):
    layers, asked, path = [layer for _, layer in mixed[2]], [], tmp_path / "costs.json"

    def counting(layer, machine):
        asked.append(layer)
        return flops(layer)

    measured_table(layers[:2], MACHINE, path, counting)
    first = len(asked)
    table = measured_table([*layers, *layers], MACHINE, path, counting)
    assert asked[first:] == [n for layer in layers[2:] for n in narrowings(layer)]
    again = measured_table(layers, Machine("made_up", 1, version="2"), path, None)
    assert again.points == table.points and len(table.points) == 5


def test_tables_of_another_runtime_are_refused(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(LayerTable(Machine("onnxruntime", 4)).to_json())
    with pytest.raises(InputError, match=r"costs\.json was measured with"):
        measured_table([], Machine("onnxruntime", 2), path)


@pytest.mark.parametrize("content", [[], {"points": {}}, {"machine": {"cores": 1}, "points": {}}, {"points": {"a": 1}}])
def test_files_that_are_no_tables_are_named(content, tmp_path):
    (tmp_path / "costs.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"costs\.json holds no table"):
        LayerTable.read(tmp_path / "costs.json")


def test_layers_that_were_not_measured_are_named(mixed):
    _, graph, layers = mixed
    with pytest.raises(InputError, match="lacks inputs=3 outputs=16"):
        layers_cost(graph, layers, LayerTable(MACHINE))


def test_layers_run_in_the_runtime_as_described(mixed):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net, _, layers = mixed
    shapes = {}
    for name, module in net.named_modules():
        module.register_forward_hook(lambda _m, _a, out, name=name: shapes.update({name: out.shape}))
    net(IMAGE)
    for name, layer in layers:
        (said,) = open_onnx(onnx_of(layer), Machine("onnxruntime", 1))(torch.rand(1, layer.inputs, *layer.size))
        assert said.shape[1] == layer.outputs
        if name != "head":
            assert said.shape[2:] == shapes[name][2:]


def test_whole_nets_set_the_scale(mixed):
    _, graph, layers = mixed
    table = measured_table([layer for _, layer in layers], MACHINE, milliseconds=flops)
    cost = LatencyCost(layers_cost(graph, layers, table), reads_cost(graph, layers))
    kept = np.array([[max(1, g.channels * share // 8) for g in graph.groups] for share in (8, 6, 4, 2)], float)
    true = LatencyCost(cost.layers, cost.reads, 2.0, 0.5, 700.0)
    found = cost.calibrated(kept, list(true(kept)))
    assert (found.scale, found.per_read, found.constant) == pytest.approx((2.0, 0.5, 700.0), rel=1e-4)
    steps = np.ones(len(graph.groups))
    assert found.without(kept[0], steps)[0] == pytest.approx(true(kept[:1] - np.eye(len(steps))[:1])[0], rel=1e-4)


@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
def test_targets_of_latency_go_by_the_cost_handed_in(allocation):
    """On a machine where only the first layer takes time, that layer alone must shrink enough."""
    net = chain()
    graph = dcodp.trace(net, (IMAGE,))
    scores = {g.name: torch.rand(g.channels) + 0.5 for g in graph.groups}
    layers = layers_of(net, IMAGE)
    table = measured_table([layer for _, layer in layers], MACHINE, milliseconds=flops)
    cost = LatencyCost(layers_cost(graph, layers, table), reads_cost(graph, layers), constant=1000.0)
    plan = dcodp.select(
        graph, scores, target="latency:0.6", allocation=allocation, comparable=True, costs={"latency": cost}
    )
    dense, small = cost(np.array([dense_counts(graph), dense_counts(graph, plan.groups)]))
    assert small / dense == pytest.approx(0.6, abs=0.01)
    assert plan.settings["target"] == "latency:0.6"


@pytest.mark.parametrize("allocation", ["uniform", "cost"])
def test_latency_needs_a_cost(allocation):
    graph = dcodp.trace(chain(), (IMAGE,))
    scores = {g.name: torch.rand(g.channels) for g in graph.groups}
    with pytest.raises(InputError, match=r"target=latency:… needs what layers cost on your machine"):
        dcodp.select(graph, scores, target="latency:0.5", allocation=allocation, comparable=True)
