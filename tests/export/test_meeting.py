"""Pruning to a measured share: what is asked of the table is corrected by what was measured. No clock decides here."""

import numpy as np
import pytest
import torch
from nets import IMAGE, chain

import dcodp
from dcodp.errors import InputError
from dcodp.export import Latency, Machine, latency_cost, measuring, met_latency, met_on
from dcodp.export.layer_costs import LayerTable
from dcodp.export.layer_sums import dense_counts
from dcodp.export.layers import layers_of
from dcodp.export.meeting import met_in_ways
from dcodp.pruning.costs import flops_of


def milliseconds(value):
    return Latency(value, value, value, 1, 1)


@pytest.fixture(scope="module")
def traced():
    net = chain(256)
    graph = dcodp.trace(net, (IMAGE,))
    return net, graph, {g.name: torch.rand(g.channels) for g in graph.groups}


def machine_with(graph, overhead):
    """A machine on which a net takes its share of FLOPs, and an overhead that no table knows."""
    cost = flops_of(graph)
    dense = cost(dense_counts(graph)[None])[0]

    def measure(plan):
        share = cost(dense_counts(graph, plan.groups)[None])[0] / dense
        return milliseconds(1 + overhead), milliseconds(share + overhead)

    return cost, measure


def share_at(graph, cost, channels):
    """The share of `cost` that is left where every group keeps so many channels."""
    counts = [dense_counts(graph, {g.name: range(channels) for g in graph.groups}), dense_counts(graph)]
    kept, dense = cost(np.array(counts))
    return float(kept / dense)


def test_a_table_that_is_right_takes_one_try(traced):
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    met = met_latency(graph, scores, 0.5, cost, measure, round_to=8)
    assert met.within() and len(met.tries) == 1 and met.tries[0].asked == 0.5
    assert all(len(kept) % 8 == 0 for kept in met.best.plan.groups.values())


@pytest.mark.parametrize("wanted", [0.4, 0.6, 0.8])
def test_an_overhead_that_the_table_lacks_is_made_up_for(traced, wanted):
    _, graph, scores = traced
    met = met_latency(graph, scores, wanted, *machine_with(graph, 0.3), tolerance=0.03, tries=8, round_to=4)
    assert met.within(0.03) and len(met.tries) > 1
    assert met.best.asked < wanted


def test_what_cannot_be_met_returns_the_nearest(traced):
    _, graph, scores = traced
    met = met_latency(graph, scores, 0.2, *machine_with(graph, 2.0))
    assert not met.within() and met.best.share == min(t.share for t in met.tries)


def test_noise_does_not_send_the_share_away(traced):
    """Two near tries on the same side whose order is noise: no secant through them is followed."""
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    noise = iter([1.16, 1.08, 0.9, 0.93, 1.0, 1.0, 1.0])

    def noisy(plan):
        dense, small = measure(plan)
        return dense, milliseconds(small.median_ms * next(noise))

    met = met_latency(graph, scores, 0.5, cost, noisy, tolerance=0.001)
    assert all(0.35 < t.asked < 0.6 for t in met.tries)


def test_smaller_blocks_are_taken_only_where_the_share_is_not_met_in_large_ones(traced):
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    for channels, block in ((160, 16), (24, 8)):
        wanted = share_at(graph, cost, channels)
        met = met_latency(graph, scores, wanted, cost, measure)
        assert met.within() and {len(kept) % 16 for kept in met.best.plan.groups.values()} == {block % 16}


def test_what_no_block_allows_is_refused(traced):
    _, graph, scores = traced
    with pytest.raises(InputError, match="cannot be met"):
        met_latency(graph, scores, 0.5, *machine_with(graph, 0.0), min_channels=256)


def test_what_was_near_by_chance_is_not_taken(traced):
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.3)
    asked = []

    def lucky(plan):
        asked.append(plan)
        return (milliseconds(1), milliseconds(0.5)) if len(asked) == 1 else measure(plan)

    met = met_latency(graph, scores, 0.5, cost, lucky, round_to=4)
    assert asked[0].groups == asked[1].groups and met.tries[0].share > 0.55 and met.within() and len(met.tries) > 1


@pytest.mark.parametrize("wanted", [0, 1.5])
def test_shares_out_of_range_are_refused(traced, wanted):
    _, graph, scores = traced
    with pytest.raises(InputError, match="use 0 < share"):
        met_latency(graph, scores, wanted, *machine_with(graph, 0.0))


def test_a_cost_is_measured_and_met_in_the_runtime(traced, tmp_path):
    """End to end; how long anything took decides nothing."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net, graph, scores = traced
    machine = Machine("onnxruntime", 1, spin=False)
    cost = latency_cost(net, graph, IMAGE, lambda r: r, machine, tmp_path / "costs.json", widths=(0.5,))
    counts = np.array([dense_counts(graph), dense_counts(graph) / 2])
    dense, half = cost(counts)
    assert 0 < half <= dense and (tmp_path / "costs.json").is_file()
    met = met_latency(graph, scores, 0.9, cost, measuring(net, IMAGE, lambda r: r, machine, 5), tries=2, round_to=1)
    assert met.best.plan.settings["target"].startswith("latency:")
    assert met.best.dense.n == met.best.small.n == 5


def test_of_nets_that_take_as_long_that_which_loses_least_is_taken(traced):
    """By blocks and in any counts: two nets near the share, of which `lost` decides; the order of the ways does not."""
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    wanted = share_at(graph, cost, 160) * 0.99
    for best in (16, 1):

        def lost(plan, best=best):
            in_blocks = all(len(kept) % 16 == 0 for kept in plan.groups.values())
            return float(in_blocks != (best == 16))

        met = met_in_ways(graph, scores, wanted, [(cost, 16), (cost, 1), (cost, 16)], measure, lost)
        assert met.within() and met.of == 2
        assert lost(met.best.plan) == 0
        assert "of 2 nets that took as long, it loses least" in met.told(Machine("onnxruntime", 1, spin=False))


def test_a_way_that_is_not_near_enough_is_not_weighed(traced):
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    met = met_in_ways(graph, scores, 0.45, [(cost, 1), (cost, 256)], measure, lambda plan: -len(plan.groups))
    assert met.within() and met.of == 1


def test_the_first_way_has_to_be_possible(traced):
    _, graph, scores = traced
    cost, measure = machine_with(graph, 0.0)
    with pytest.raises(InputError):
        met_in_ways(graph, scores, 0.3, [(cost, 256), (cost, 1)], measure, None)


def test_a_table_of_another_processor_decides_alone(monkeypatch, traced, tmp_path):
    """Nothing is timed here for a device that is elsewhere, nor filled in where its file lacks it."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net, graph, scores = traced
    here, there = Machine("onnxruntime", 1, spin=False), Machine("onnxruntime", 1, processor="a telephone's")
    layers = [layer for _, layer in layers_of(net, IMAGE)]
    points = {layer.key: [(i, o, 1e-4 * i * o) for i in (8, 64) for o in (8, 64)] for layer in layers}
    path = tmp_path / "device.json"
    path.write_text(LayerTable(there, points).to_json())
    monkeypatch.setattr("dcodp.export.net_costs.timed", None)
    met = met_on(here, net, graph, scores, 0.5, IMAGE, lambda result: result, path, lambda plan: 0.0)
    assert met.within() and met.best.small.n == 0
    assert "by the layer times of a telephone's alone the pruned net takes 0." in met.told(here)
    path.write_text(LayerTable(there, dict(list(points.items())[:1])).to_json())
    with pytest.raises(InputError, match=r"measured on a telephone's and lacks \d+ layers .* complete it there"):
        met_on(here, net, graph, scores, 0.5, IMAGE, lambda result: result, path)
