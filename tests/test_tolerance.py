"""The oracle's tolerance follows what rounding does to the net: right nets pass in every dtype, wrong ones do not."""

import pytest
import torch
from torch import nn

import dcodp
from dcodp.testing import assert_equivalent, default_tolerance, enliven


class Residual(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.a, self.b, self.gain = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), gain

    def forward(self, x):
        return x + self.gain * self.b(self.a(x).relu())


class Difference(nn.Module):
    """What is left of two nearly equal numbers is mostly rounding."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        y = self.a(x)
        return self.out((y + 300) - 300)


def deep(gain=1.0, depth=6):
    blocks = [Residual(gain) for _ in range(depth)]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *blocks, nn.Conv2d(16, 2, 1))


NETS = {
    "shallow": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 1)),
    "deep": deep,
    "growing": lambda: deep(gain=8.0),
    "cancelling": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), Difference()),
    "normed": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(1, 16), nn.SiLU(), nn.Conv2d(16, 2, 1)),
    "saturated": lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.Sigmoid(), nn.Conv2d(16, 2, 1), nn.Softmax(1)),
}


def pruned(name, dtype):
    torch.manual_seed(0)
    x = (torch.rand(2, 3, 12, 12),)
    model = enliven(NETS[name]().eval(), x).to(dtype)
    x = (x[0].to(dtype),)
    graph = dcodp.trace(model, x)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups})
    return model, dcodp.prune(model, plan), plan, x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETS)
def test_a_right_net_passes(name, dtype):
    assert_equivalent(*pruned(name, dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NETS)
def test_a_swapped_pair_of_channels_does_not(name, dtype):
    model, small, plan, x = pruned(name, dtype)
    weight = [p for p in small.parameters() if p.dim() == 4][-1]
    with torch.no_grad():
        weight.copy_(weight[:, [1, 0, *range(2, weight.shape[1])]].clone())
    with pytest.raises(AssertionError, match="differs by"):
        assert_equivalent(model, small, plan, x)


def test_limits():
    assert default_tolerance(torch.float64, 0.0) == 1e-11 and default_tolerance(torch.float32, 0.0) == 1e-5
    assert default_tolerance(torch.float32, 6e-5) == pytest.approx(9.6e-4)
    assert default_tolerance(torch.bfloat16, 1.0) == 0.05
