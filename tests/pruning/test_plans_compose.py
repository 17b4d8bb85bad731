"""Two prunings are one plan against the dense architecture."""

import pytest
import torch
from torchvision import models

import dcodp

X = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def pruned(model, seed, ratio=0.4):
    graph = dcodp.trace(model, X)
    generator = torch.Generator().manual_seed(seed)
    scores = {g.name: torch.rand(g.channels, generator=generator) for g in graph.groups}
    plan = dcodp.select(graph, scores, ratio=ratio)
    return plan, dcodp.prune(model, plan)


@pytest.mark.parametrize("build", [models.resnet18, models.mobilenet_v3_small, models.densenet121])
def test_twice_is_one_plan(build, tmp_path):
    torch.manual_seed(0)
    dense = build().eval()
    first, small = pruned(dense, 0)
    second, smaller = pruned(small, 1)
    both = first.then(second)
    again = dcodp.prune(dense, both)
    with torch.no_grad():
        assert torch.equal(again(X), smaller(X))
    assert both.channel_ratio > max(first.channel_ratio, second.channel_ratio)
    dcodp.testing.assert_equivalent(dense, smaller, both, X)
    dcodp.save(smaller, both, tmp_path / "m.safetensors")
    assert torch.equal(dcodp.load(build().eval(), tmp_path / "m.safetensors")(X), smaller(X))
    assert dcodp.PrunePlan.from_dict(both.to_dict()) == both


def test_three_times_as_well():
    dense = models.resnet18().eval()
    plans, net = [], dense
    for seed in range(3):
        plan, net = pruned(net, seed, ratio=0.2)
        plans.append(plan)
    left = plans[0].then(plans[1]).then(plans[2])
    right = plans[0].then(plans[1].then(plans[2]))
    assert left.keep == right.keep and left.groups == right.groups and left.attributes == right.attributes
    assert torch.equal(dcodp.prune(dense, left)(X), net(X))


def test_plans_that_do_not_follow_each_other_are_refused():
    dense = models.resnet18().eval()
    first, _ = pruned(dense, 0)
    with pytest.raises(dcodp.InputError, match=r"the first one leaves .*; make it for the net that the first one"):
        first.then(first)
