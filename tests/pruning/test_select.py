"""Selection: exact counts, the lowest scores go, patterns and errors."""

import pytest
import torch
from torch import nn

import dcodp
from dcodp.pruning.allocation import kept_count


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 10, 1), nn.ReLU(), nn.Conv2d(10, 2, 1)).eval()


@pytest.fixture
def graph(model):
    return dcodp.trace(model, (torch.rand(1, 3, 4, 4),))


@pytest.fixture
def scores(graph):
    return {g.name: torch.rand(g.channels) for g in graph.groups}


@pytest.mark.parametrize(
    ("channels", "ratio", "round_to", "least", "expected"),
    [
        (16, 0.5, 1, 1, 8), (10, 0.25, 1, 1, 7), (64, 0.7, 8, 1, 16), (64, 0.0, 8, 1, 64), (10, 0.5, 8, 1, 8),
        (6, 0.5, 8, 1, 6), (16, 0.99, 1, 1, 1), (16, 0.99, 1, 4, 4), (3, 0.99, 1, 4, 3), (48, 0.2, 8, 1, 40),
    ],
)  # fmt: skip
def test_kept_count(channels, ratio, round_to, least, expected):
    assert kept_count(channels, ratio, round_to, least) == expected


def test_the_lowest_scores_are_removed(graph):
    scores = {"0": torch.arange(16.0).flip(0), "2": torch.arange(10.0)}
    plan = dcodp.select(graph, scores, ratio=0.5)
    assert plan.groups == {"0": list(range(8)), "2": [5, 6, 7, 8, 9]}
    assert plan.keep["2.weight"] == {0: [5, 6, 7, 8, 9], 1: list(range(8))}
    assert plan.attributes["2"] == {"out_channels": 5, "in_channels": 8}
    assert plan.channel_ratio == pytest.approx(0.5)


def test_ratio_zero_is_the_identity(model, graph, scores):
    plan = dcodp.select(graph, scores, ratio=0.0)
    assert plan.keep == {} and plan.attributes == {}
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(dcodp.prune(model, plan)(x), model(x))


def test_ignored_layers_are_left_alone_and_patterns_must_match(graph, scores):
    plan = dcodp.select(graph, scores, ratio=0.5, ignore=["0"])
    assert len(plan.groups["0"]) == 16 and len(plan.groups["2"]) == 5
    with pytest.raises(dcodp.InputError, match=r"head\.\*.*matches no"):
        dcodp.select(graph, scores, ratio=0.5, ignore=["head.*"])


def test_ratios_per_group(graph, scores):
    plan = dcodp.select(graph, scores, ratio={"*": 0.5, "2": 0.2})
    assert len(plan.groups["0"]) == 8 and len(plan.groups["2"]) == 8


def test_groups_without_scores_are_left_alone(graph, scores):
    del scores["0"]
    assert len(dcodp.select(graph, scores, ratio=0.5).groups["0"]) == 16


def test_without_interlayer_coupled_groups_are_left_alone():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.out = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.out((y := self.a(x)) + self.c(self.b(y)))

    graph = dcodp.trace(Residual(), (torch.rand(1, 3, 4, 4),))
    scores = {g.name: torch.rand(8) for g in graph.groups}
    kept = dcodp.select(graph, scores, ratio=0.5, interlayer=False).groups
    assert {name: len(k) for name, k in kept.items()} == {"a": 8, "b": 4}


def test_a_depthwise_layer_does_not_make_a_group_coupled():
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), depthwise, nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
    ).eval()
    (group,) = dcodp.trace(model, (torch.rand(1, 3, 4, 4),)).groups
    assert group.layers == ("0", "2") and group.depthwise == ("2",) and not group.coupled


@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.3])
def test_a_ratio_out_of_range_is_refused(graph, scores, ratio):
    with pytest.raises(dcodp.InputError, match="out of range"):
        dcodp.select(graph, scores, ratio=ratio)


def test_wrong_scores_are_refused(graph, scores):
    with pytest.raises(dcodp.InputError, match="does not have"):
        dcodp.select(graph, {"nose": torch.rand(3)})
    with pytest.raises(dcodp.InputError, match=r"give \[16\]"):
        dcodp.select(graph, {**scores, "0": torch.rand(3)})
    with pytest.raises(dcodp.InputError, match="NaN"):
        dcodp.select(graph, {**scores, "0": torch.full((16,), float("nan"))})


def test_groups_without_scores_are_named(caplog):
    graph = dcodp.trace(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)).eval(), torch.rand(1, 3, 4, 4)
    )
    scored, left = graph.groups
    plan = dcodp.select(graph, {scored.name: torch.rand(scored.channels)}, ratio=0.5)
    assert plan.settings["unscored"] == [left.name]
    assert f"1 of 2 groups have no scores and stay whole: {left.name}" in caplog.text
    assert "unscored" not in dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}).settings
