"""Least-squares rescaling of the consumers after pruning."""

import pytest
import torch
from torch import nn

import dcodp
from dcodp.calibration import gather
from dcodp.calibration.contributions import Contributions
from dcodp.importance import evidence_for, group_scores, thinet_scales_from_gram
from dcodp.repairs.methods.rescale import rescaled


def contributions(network, graph, batches):
    evidence, statistic = evidence_for(network, graph, ["thinet"], locations=10**4), Contributions()
    gather(evidence, batches, lambda inputs: network(*inputs))
    return statistic.grams(evidence.sums[statistic], evidence.subject), group_scores("thinet", evidence)


def test_a_copy_stands_in_for_its_original():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 1)).double()
    with torch.no_grad():
        network[0].weight[4], network[0].bias[4] = network[0].weight[1].clone(), network[0].bias[1].clone()
    inputs = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = dcodp.trace(network, inputs)
    grams, _ = contributions(network, graph, [(inputs,)])
    plan = dcodp.select(graph, {"0": torch.tensor([1.0, 1, 1, 1, 0, 1])}, ratio=1 / 6)
    small = dcodp.prune(network, plan)
    assert not torch.allclose(small(inputs), network(inputs))
    assert rescaled(small, plan, graph, grams) is small
    torch.testing.assert_close(small(inputs), network(inputs))


def test_every_consumer_gets_its_factors(network, graph, batches):
    grams, scores = contributions(network, graph, batches)
    plan = dcodp.select(graph, scores, ratio=0.5)
    plain = dcodp.prune(network, plan)
    small = rescaled(dcodp.prune(network, plan), plan, graph, grams)
    changed = {n for n, t in small.named_parameters() if not torch.equal(t, plain.get_parameter(n))}
    assert changed == {"branch.weight", "down.weight", "mix.weight", "fc.weight"}
    kept = torch.tensor(plan.groups["down"])
    factors = thinet_scales_from_gram(grams["down → mix.weight"], kept).float()
    wanted = plain.mix.weight * torch.cat([factors, factors])[:, None, None]  # each channel twice in its input
    torch.testing.assert_close(small.mix.weight, wanted)


def test_the_outputs_come_nearer(network, graph, batches):
    grams, scores = contributions(network, graph, batches)
    plan = dcodp.select(graph, {"down": scores["down"]}, ratio=0.5)
    images = torch.cat([images for (images,) in batches])
    seen = []
    for model in (network, dcodp.prune(network, plan), rescaled(dcodp.prune(network, plan), plan, graph, grams)):
        model.mix.register_forward_hook(lambda module, args, out: seen.append(out.detach()))
        model.eval()(images)
    dense, plain, better = seen
    assert (better - dense).square().sum() < 0.99 * (plain - dense).square().sum()


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_without_contributions_nothing_changes(network, graph, batches, ratio):
    grams, scores = contributions(network, graph, batches)
    plan = dcodp.select(graph, scores, ratio=ratio)
    plain = dcodp.prune(network, plan)
    small = rescaled(dcodp.prune(network, plan), plan, graph, grams if ratio == 0 else {})
    assert all(torch.equal(t, plain.get_parameter(n)) for n, t in small.named_parameters())
