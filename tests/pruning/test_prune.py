"""Slicing and storing: a new model, shared tensors stay shared, files without pickle, other architectures refused."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

import dcodp


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.a = nn.Conv2d(width, width, 1, bias=False)
        self.b = nn.Conv2d(width, width, 1, bias=False)
        self.b.weight = self.a.weight
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.out(self.a(y) + self.b(y))


X = (torch.rand(1, 3, 4, 4),)


@pytest.fixture
def model():
    return Tied().eval()


@pytest.fixture
def plan(model):
    graph = dcodp.trace(model, X)
    return dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)


def test_the_dense_model_is_left_untouched(model, plan):
    before = copy.deepcopy(model.state_dict())
    small = dcodp.prune(model, plan)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert list(small.state_dict()) == list(before)


def test_shared_weights_stay_shared(model, plan):
    small = dcodp.prune(model, plan)
    assert small.a.weight is small.b.weight and small.a.weight.shape == (4, 4, 1, 1)
    assert {"a.weight", "b.weight"} <= set(plan.keep)


def test_the_pruned_model_copies_pickles_and_trains(model, plan):
    small = dcodp.prune(model, plan)
    for twin in (copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(twin(*X), small(*X))
    small.train()(*X).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_pruning_can_be_repeated(model, plan):
    small = dcodp.prune(model, plan)
    graph = dcodp.trace(small, X)
    again = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    smaller = dcodp.prune(small, again)
    assert smaller.a.weight.shape == (2, 2, 1, 1)
    dcodp.testing.assert_equivalent(small, smaller, again, X)


def test_plan_round_trip(plan, tmp_path):
    path = tmp_path / "plan.json"
    plan.to_json(path)
    assert dcodp.PrunePlan.from_json(path) == plan
    assert json.loads(path.read_text())["keep"]["out.weight"].keys() == {"1"}


@pytest.mark.parametrize("content", ["not json", "[]", '{"format": 99}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(dcodp.InputError):
        dcodp.PrunePlan.from_json(path)


def test_save_and_load(model, plan, tmp_path):
    small = dcodp.prune(model, plan)
    dcodp.save(small, plan, tmp_path / "small.safetensors")
    loaded = dcodp.load(Tied().eval(), tmp_path / "small.safetensors")
    assert torch.equal(loaded(*X), small(*X))


def test_another_architecture_is_refused(model, plan, tmp_path):
    dcodp.save(dcodp.prune(model, plan), plan, tmp_path / "small.safetensors")
    with pytest.raises(dcodp.InputError, match=r"expects .* of shape"):
        dcodp.load(Tied(width=12), tmp_path / "small.safetensors")
    with pytest.raises(dcodp.InputError, match="does not have"):
        dcodp.load(nn.Conv2d(3, 4, 1), tmp_path / "small.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"not a tensor file at all")
    with pytest.raises(dcodp.InputError, match="not a readable safetensors file"):
        dcodp.load(model, tmp_path / "noise.safetensors")
    with pytest.raises(dcodp.InputError, match="does not exist"):
        dcodp.load(model, tmp_path / "absent.safetensors")


def test_lists_of_tensors_travel_with_the_net(tmp_path):
    """Anchors that torchvision keeps in a list, for instance."""

    class Kept(nn.Module):
        def __init__(self, value: float):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.shifts = [torch.full((1,), value), torch.full((2, 1), 2 * value)[0]]

        def forward(self, x):
            return self.out(self.conv(x).relu()) + self.shifts[0] + self.shifts[1]

    dense, x = Kept(3.0).eval(), torch.rand(1, 3, 4, 4)
    plan = dcodp.select(dcodp.trace(dense, (x,)), {"conv": torch.rand(8)}, ratio=0.5)
    small = dcodp.prune(dense, plan)
    dcodp.save(small, plan, tmp_path / "m.safetensors")
    loaded = dcodp.load(Kept(0.0).eval(), tmp_path / "m.safetensors")
    assert isinstance(loaded.shifts, list) and torch.equal(loaded(x), small(x))
