"""The oracle must see what is wrong, or it proves nothing."""

import pytest
import torch
from torch import nn

import dcodp
from dcodp.testing import assert_equivalent, enliven, relative_error, run


@pytest.fixture
def case():
    layers = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.SiLU(), nn.Conv2d(12, 8, 3), nn.BatchNorm2d(8), nn.SiLU()]
    model = nn.Sequential(*layers, nn.Conv2d(8, 2, 1)).double().eval()
    x = (torch.rand(1, 3, 12, 12, dtype=torch.float64),)
    enliven(model, x)
    graph = dcodp.trace(model, x)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    return model, dcodp.prune(model, plan), plan, x


def test_signals_are_alive_and_pruning_shows(case):
    model, small, plan, x = case
    assert_equivalent(model, small, plan, x)
    dense, pruned = run(model, x)[0], run(small, x)[0]
    assert dense.std() > 1e-2 and relative_error(dense, pruned) > 1e-2


@pytest.mark.parametrize(("name", "dim"), [("3.weight", 1), ("0.weight", 0), ("1.running_mean", 0), ("6.weight", 1)])
def test_one_swapped_pair_of_channels_is_caught(case, name, dim):
    model, small, plan, x = case
    tensor = small.state_dict()[name]
    order = torch.arange(tensor.shape[dim])
    order[:2] = torch.tensor([1, 0])
    with torch.no_grad():
        tensor.copy_(tensor.index_select(dim, order))
    with pytest.raises(AssertionError, match="differs by"):
        assert_equivalent(model, small, plan, x, tolerance=1e-6)


def test_not_a_number_is_caught(case):
    model, small, plan, x = case
    with torch.no_grad():
        small[0].bias[0] = float("nan")
    with pytest.raises(AssertionError, match="inf"):
        assert_equivalent(model, small, plan, x)
