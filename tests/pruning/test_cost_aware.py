"""Cost-aware allocation: costs as counted, targets met, what loses least for what it saves goes first."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import dcodp
from dcodp.pruning.cost_aware import CostAware
from dcodp.pruning.costs import COSTS

X = (torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = models.resnet18().eval()
    graph = dcodp.trace(model, X)
    return model, graph, {g.name: torch.rand(g.channels) for g in graph.groups}


@pytest.mark.parametrize("kind", ["flops", "parameters"])
def test_costs_are_what_the_graph_counts(traced, kind):
    _, graph, _ = traced
    cost, chance = COSTS[kind](graph), np.random.default_rng(0)
    counted = graph.flops if kind == "flops" else graph.parameter_count
    for _ in range(3):
        kept = np.array([chance.integers(1, g.channels + 1) for g in graph.groups])
        wanted = counted({g.name: range(n) for g, n in zip(graph.groups, kept, strict=True)})
        assert cost(kept[None])[0] == pytest.approx(wanted, rel=1e-12)
        steps = np.minimum(kept, 2).astype(float)
        for number in (0, len(kept) - 1):
            less = kept.astype(float)
            less[number] -= steps[number]
            assert cost.without(kept.astype(float), steps)[number] == pytest.approx(cost(less[None])[0], rel=1e-12)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("target", ["flops:0.8", "flops:0.4", "parameters:0.5"])
def test_targets_are_met_within_one_percent(traced, target, round_to):
    _, graph, scores = traced
    plan = dcodp.select(graph, scores, target=target, allocation="cost", comparable=True, round_to=round_to)
    kind, share = target.split(":")
    counted, dense = (
        (graph.flops, graph.flops()) if kind == "flops" else (graph.parameter_count, graph.parameter_count())
    )
    assert counted(plan.groups) / dense == pytest.approx(float(share), abs=0.01)
    assert all(len(kept) % round_to == 0 for kept in plan.groups.values())
    assert all(len(plan.groups[g.name]) >= g.channels / 10 for g in graph.groups)
    assert plan.settings["allocation"] == "cost"


def test_what_loses_least_for_what_it_saves_goes_first():
    """Two layers alike but for their scores: the one whose channels matter less is cut, down to the floor."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)]
    graph = dcodp.trace(nn.Sequential(*layers, nn.Conv2d(16, 2, 1)).eval(), X)
    scores = {"0": torch.full((16,), 100.0), "1": torch.full((16,), 1.0), "2": torch.full((16,), 100.0)}
    kept = dcodp.select(graph, scores, target="flops:0.6", allocation="cost", comparable=True).groups
    assert {name: len(channels) for name, channels in kept.items()}["1"] < 12
    assert len(kept["0"]) == len(kept["2"]) == 16
    flat, steep = [(0.5, 0.01), (0.75, 0.02)], [(0.5, 10.0), (0.75, 20.0)]
    measured = CostAware(measured={"0": flat, "1": steep, "2": flat}, trust=1.0)
    kept = dcodp.select(graph, scores, target="flops:0.6", allocation=measured).groups
    assert len(kept["1"]) == 16 and len(kept["0"]) + len(kept["2"]) < 28


def test_a_ratio_is_the_budget_of_the_same_ratio_in_every_group(traced):
    _, graph, scores = traced
    alike, cost = (
        dcodp.select(graph, scores, ratio=0.3, allocation=a, comparable=True).groups for a in ("uniform", "cost")
    )
    assert graph.flops(cost) == pytest.approx(graph.flops(alike), rel=0.01)
    assert alike != cost


def test_a_floor_gives_way_to_the_budget_and_says_so(traced, caplog):
    _, graph, scores = traced
    dcodp.select(graph, scores, target="flops:0.5", allocation="cost", comparable=True)
    assert not caplog.records
    plan = dcodp.select(graph, scores, target="flops:0.02", allocation="cost", comparable=True)
    assert graph.flops(plan.groups) / graph.flops() == pytest.approx(0.02, abs=0.01)
    assert "takes more than floor=0.25 allows: it is 0.0625 now" in caplog.text


def test_a_target_below_the_floors_is_refused(traced):
    _, graph, scores = traced
    with pytest.raises(dcodp.InputError, match=r"cannot be met: with 0\.1 of each group .*; ask for that share"):
        dcodp.select(graph, scores, target="flops:0.005", allocation=CostAware(floor=0.8), comparable=True)
    plan = dcodp.select(graph, scores, target="flops:0.005", allocation=CostAware(floor=0.01), comparable=True)
    assert graph.flops(plan.groups) / graph.flops() == pytest.approx(0.005, abs=0.01)


def test_scores_that_cannot_be_compared_need_what_was_measured(traced):
    _, graph, scores = traced
    with pytest.raises(dcodp.InputError, match=r"these cannot be; measure .* or use importance=second_order"):
        dcodp.select(graph, scores, target="flops:0.5", allocation="cost")
    measured = CostAware(measured={g.name: [(0.5, 1.0)] for g in graph.groups})
    plan = dcodp.select(graph, scores, target="flops:0.5", allocation=measured)
    assert graph.flops(plan.groups) / graph.flops() == pytest.approx(0.5, abs=0.01)
