"""Parameters and FLOPs counted from the graph are those of the pruned net."""

import pytest
import torch
from small_nets import Net, conv
from torch import nn
from torch.nn import functional as F
from torchvision import models

import dcodp
from dcodp.evaluation.complexity import count_flops, count_parameters


def attention(m, x):
    y = m.a(x).flatten(2).transpose(1, 2)
    return m.out(F.scaled_dot_product_attention(m.q(y), m.k(y), y, scale=0.3))


MODELS = {
    "resnet18": models.resnet18,
    "mobilenet": models.mobilenet_v3_small,
    "transposed": lambda: nn.Sequential(
        conv(3, 8), nn.ConvTranspose2d(8, 6, 2, 2), conv(6, 6, 3, groups=6), conv(6, 2)
    ),
    "attention": lambda: Net(attention, a=conv(3, 8), q=nn.Linear(8, 6), k=nn.Linear(8, 6), out=nn.Linear(8, 2)),
    "flattened": lambda: nn.Sequential(conv(3, 8), nn.AvgPool2d(16), nn.Flatten(), nn.Linear(32, 7), nn.Linear(7, 2)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_counts_are_exact(name, ratio):
    model, x = MODELS[name]().eval(), (torch.rand(2, 3, 32, 32),)
    graph = dcodp.trace(model, x)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio)
    small = dcodp.prune(model, plan)
    assert graph.flops(plan.groups) == count_flops(small, x)
    assert graph.parameter_count(plan.groups) == count_parameters(small)
    assert graph.flops() == count_flops(model, x) and graph.parameter_count() == count_parameters(model)


def test_shared_weights_count_once_as_parameters_and_twice_as_operations():
    model = Net(lambda m, x: m.out(m.b(m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 8), out=conv(8, 2)).eval()
    graph = dcodp.trace(model, (torch.rand(1, 3, 4, 4),))
    assert graph.flops() == 2 * 16 * (3 * 8 + 2 * 8 * 8 + 8 * 2)
    assert graph.parameter_count() == count_parameters(model)
