"""A small network with everything that the scores and repairs of groups have to deal with, and its fixtures."""

import pytest
import torch
from torch import Tensor, nn

import dcodp


class Coupled(nn.Module):
    """A residual sum (coupled layers), a concatenation that repeats a map, and a linear layer behind a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(16, 5, 1)
        self.fc = nn.Linear(5 * 16, 4)

    def forward(self, images: Tensor) -> Tensor:
        first = self.norm(self.stem(images)).relu()
        second = first + self.branch(first).relu()
        third = self.down(second).relu()
        fourth = self.mix(torch.cat([third, nn.functional.max_pool2d(third, 3, 1, 1)], 1)).relu()
        return self.fc(fourth.flatten(1))


@pytest.fixture
def network() -> nn.Module:
    """Its batch norm's statistics and scales are drawn at random."""
    network = Coupled().eval()
    for tensor in (network.norm.weight.data, network.norm.running_mean, network.norm.running_var):
        tensor.uniform_(0.5, 1.5)
    return network


@pytest.fixture
def graph(network):
    return dcodp.trace(network, torch.rand(1, 3, 8, 8))


@pytest.fixture
def batches() -> list[tuple[Tensor]]:
    """Five images in three batches."""
    return [(part,) for part in torch.randn(5, 3, 8, 8).split(2)]
