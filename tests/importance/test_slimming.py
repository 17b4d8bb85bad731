"""Sparsity training: the penalty and the scales that it falls on."""

import pytest
import torch
from torch import nn

import dcodp
from dcodp.importance import prunable_scales, sparsity_penalty


def build() -> nn.Module:
    """The last batch norm's channels are the output and cannot go."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def test_penalty_and_gradient():
    network = build()
    network[1].weight.data = torch.tensor([1.0, -2.0, 0.0, 0.5])
    names = prunable_scales(network, dcodp.trace(network, torch.rand(1, 3, 4, 4)))
    assert names == ["1.weight"]
    penalty = sparsity_penalty(network, 0.1, names)
    assert penalty.item() == pytest.approx(0.35)
    penalty.backward()
    torch.testing.assert_close(network[1].weight.grad, torch.tensor([0.1, -0.1, 0.0, 0.1]))
    assert network[4].weight.grad is None
    assert sparsity_penalty(network, 0.1).item() == pytest.approx(0.35 + 0.2)


def test_scales_that_the_task_does_not_need_go_to_zero():
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(60):
        images = torch.randn(16, 3, 4, 4)
        loss = (network(images) - images[:, :2]).square().mean() + sparsity_penalty(network, 0.3, ["1.weight"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scales = network[1].weight.detach().abs()
    assert scales.min() < 0.1 < network[4].weight.detach().abs().min()


def test_a_network_without_batch_norm():
    assert sparsity_penalty(nn.Conv2d(3, 4, 1), 0.1) == 0
