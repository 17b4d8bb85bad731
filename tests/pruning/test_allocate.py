"""Budgets and rankings: targets are met by counting, one threshold ranks all groups, limits hold."""

import pytest
import torch
from torch import nn
from torchvision import models

import dcodp
from dcodp.evaluation.complexity import count_flops, count_parameters
from dcodp.pruning.allocation import Ranking, kept_count, normalised

X = (torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    model = models.resnet18().eval()
    graph = dcodp.trace(model, X)
    scores = {g.name: torch.rand(g.channels) * 10 ** float(torch.randn(1)) for g in graph.groups}
    return model, graph, scores


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("kind", ["flops", "parameters"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_targets_are_met_within_one_percent(traced, allocation, round_to, kind, share):
    model, graph, scores = traced
    plan = dcodp.select(graph, scores, target=f"{kind}:{share}", allocation=allocation, round_to=round_to)
    small = dcodp.prune(model, plan)
    if kind == "flops":
        reached = count_flops(small, X) / count_flops(model, X)
    else:
        reached = count_parameters(small) / count_parameters(model)
    assert reached == pytest.approx(share, abs=0.01) == plan.settings["kept_share"]
    assert all(len(k) % round_to == 0 for k in plan.groups.values())


@pytest.mark.parametrize("allocation", ["uniform", "global", "cost"])
def test_channels_stay_in_blocks_where_the_target_is_met_so(traced, allocation):
    _, graph, scores = traced
    how = {"target": "flops:0.5", "allocation": allocation, "comparable": True}
    plan = dcodp.select(graph, scores, round_to=None, **how)
    assert plan.settings["round_to"] == 8
    assert plan.groups == dcodp.select(graph, scores, round_to=8, **how).groups
    some = dict(list(scores.items())[1:])  # what has no score stays whole
    assert dcodp.select(graph, some, round_to=None, **how).settings["round_to"] == 8


@pytest.mark.parametrize("allocation", ["uniform", "cost"])
def test_narrow_nets_meet_their_target_in_any_counts(allocation):
    """Blocks of eight would leave each of these groups whole or not at all."""
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Conv2d(10, 12, 3), nn.Conv2d(12, 2, 1)).eval()
    graph = dcodp.trace(model, X)
    scores = {g.name: torch.rand(g.channels) for g in graph.groups}
    plan = dcodp.select(graph, scores, round_to=None, target="flops:0.7", allocation=allocation, comparable=True)
    assert plan.settings["round_to"] == 1
    with pytest.raises(dcodp.InputError, match=r"target=flops:0\.001 cannot be met"):
        dcodp.select(graph, scores, round_to=None, target="flops:0.001", allocation=allocation, comparable=True)


def test_without_a_target_no_blocks_are_needed(traced):
    _, graph, scores = traced
    assert dcodp.select(graph, scores, 0.3, round_to=None).groups == dcodp.select(graph, scores, 0.3).groups


def test_a_local_target_takes_the_same_share_of_every_group(traced):
    _, graph, scores = traced
    kept = dcodp.select(graph, scores, target="flops:0.5").groups
    shares = [len(kept[g.name]) / g.channels for g in graph.groups]
    assert max(shares) - min(shares) <= 1.5 / min(g.channels for g in graph.groups)


def test_equal_widths_are_rounded_one_group_at_a_time():
    """All groups would jump by eight channels at once, far more than 1 % of the net."""
    layers = [nn.Conv2d(3, 32, 3, padding=1), *(nn.Conv2d(32, 32, 3, padding=1) for _ in range(12))]
    model = nn.Sequential(*layers, nn.Conv2d(32, 2, 1)).eval()
    graph = dcodp.trace(model, X)
    plan = dcodp.select(graph, {g.name: torch.rand(32) for g in graph.groups}, target="flops:0.5", round_to=8)
    assert {len(k) for k in plan.groups.values()} == {16, 24}
    assert graph.flops(plan.groups) / graph.flops() == pytest.approx(0.5, abs=0.01)


def test_what_stays_is_the_best_of_its_group(traced):
    _, graph, scores = traced
    for allocation in ("uniform", "global"):
        for name, kept in dcodp.select(graph, scores, target="parameters:0.4", allocation=allocation).groups.items():
            gone = sorted(set(range(len(scores[name]))) - set(kept))
            assert not gone or scores[name][gone].max() <= scores[name][kept].min()


def test_global_ranking_removes_the_lowest_of_all_channels(traced):
    _, graph, scores = traced
    kept = dcodp.select(graph, scores, ratio=0.4, allocation="global").groups
    every = torch.cat([torch.from_numpy(normalised(scores[g.name])) for g in graph.groups])
    stays = torch.cat([torch.isin(torch.arange(g.channels), torch.tensor(kept[g.name])) for g in graph.groups])
    assert int(stays.sum()) == len(every) - round(0.4 * len(every))
    assert every[~stays].max() <= every[stays].min()


def test_normalisation_ignores_the_scale_of_a_group(traced):
    _, graph, scores = traced
    scaled = {name: s * (1000 if i % 2 else 0.001) for i, (name, s) in enumerate(scores.items())}
    kept = [dcodp.select(graph, s, ratio=0.4, allocation="global").groups for s in (scores, scaled)]
    assert kept[0] == kept[1]
    assert normalised(torch.zeros(3)).tolist() == [1, 1, 1]  # says no more than any other constant
    assert normalised(torch.tensor([3.0, -3.0])).tolist() == [1, -1]


def test_a_useless_group_keeps_its_least_number(traced):
    _, graph, scores = traced
    first = graph.groups[0]
    low = {name: s + 1 for name, s in scores.items()} | {first.name: torch.cat([torch.ones(1), torch.zeros(63)])}
    for least in (1, 4):
        kept = dcodp.select(graph, low, ratio=0.3, allocation="global", min_channels=least).groups
        assert len(kept[first.name]) == least
    assert Ranking(graph.groups[:1], low).counts(0.0) == {first.name: first.channels}


def test_frozen_and_ignored_groups_count_towards_the_target(traced):
    model, graph, scores = traced
    plan = dcodp.select(graph, scores, target="parameters:0.6", ignore=["layer1*"])
    assert all(len(plan.groups[g.name]) == g.channels for g in graph.groups if g.name.startswith("layer1"))
    assert count_parameters(dcodp.prune(model, plan)) / count_parameters(model) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "flops:0.02", "min_channels": 60}, "cannot be met: the nearest choice keeps"),
        ({"target": "parameters:0.1", "ignore": ["*"]}, "cannot be met"),
        ({"target": "watts:0.5"}, "not understood"),
        ({"target": "flops:1.5"}, "not understood"),
        ({"allocation": "galactic"}, "use uniform, global, cost"),
        ({"round_to": 0}, "round_to=0 is out of range; use round_to ≥ 1"),
        ({"min_channels": -1}, "min_channels=-1 is out of range"),
        ({"allocation": "global", "ratio": {"*": 0.5}}, "give one number"),
        ({"target": "flops:0.5", "ratio": {"*": 0.5}}, "give one number"),
    ],
)
def test_what_cannot_be_is_refused(traced, options, message):
    _, graph, scores = traced
    with pytest.raises(dcodp.InputError, match=message):
        dcodp.select(graph, scores, **options)


def test_comparable_scores_meet_one_threshold_as_they_are(traced):
    _, graph, scores = traced
    settings = {"ratio": 0.3, "allocation": "global"}
    kept = dcodp.select(graph, scores, **settings, comparable=True).groups
    free = [g.name for g in graph.groups if len(kept[g.name]) > 1]  # of the others the last channel had to stay
    lowest_kept = min(scores[name][kept[name]].min() for name in free)
    removed = {name: torch.ones(len(scores[name]), dtype=torch.bool) for name in free}
    for name in free:
        removed[name][kept[name]] = False
    highest_removed = max(scores[name][removed[name]].max() for name in free if removed[name].any())
    assert highest_removed < lowest_kept
    assert kept != dcodp.select(graph, scores, **settings).groups


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"target": "flops:0.5"}])
def test_equal_scores_go_in_equal_shares_under_one_threshold(traced, value, options):
    """Ties between groups are not broken by the order of the layers, nor do groups of zeros go first."""
    _, graph, scores = traced
    alike = {name: torch.full_like(s, value if i % 2 else 1.0) for i, (name, s) in enumerate(scores.items())}
    plan = dcodp.select(graph, alike, allocation="global", **options)
    shares = [len(plan.groups[g.name]) / g.channels for g in graph.groups]
    assert max(shares) - min(shares) < 0.1 and max(shares) < 0.9


def test_ties_within_a_group_keep_the_earlier_channels(traced):
    _, graph, scores = traced
    ranking = Ranking(graph.groups[:2], {name: torch.ones_like(s) for name, s in scores.items()})
    assert all(ranks.tolist() == sorted(ranks.tolist(), reverse=True) for ranks in ranking.ranks.values())


def test_the_least_number_is_a_multiple_too():
    assert kept_count(64, 0.99, round_to=8, min_channels=10) == 16
    assert kept_count(12, 0.99, round_to=8, min_channels=10) == 12  # not as large
