"""Nets of a few named layers, each pruned at random and checked against the oracle."""

import torch
from torch import nn

import dcodp
from dcodp.testing import assert_equivalent, enliven


class Net(nn.Module):
    """Any forward over named layers, so that a test states one construction in one line."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def conv(i, o, k=1, **options):
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


IMAGE = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def removed_at_half(model, x=IMAGE, ratio=0.5, outputs=None):
    """Trace, prune at random and check against the oracle; returns the graph and the pruned model."""
    model = enliven(model.double().eval(), (x,))
    graph = dcodp.trace(model, (x,), outputs=outputs)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=ratio)
    small = dcodp.prune(model, plan)
    assert_equivalent(model, small, plan, (x,), outputs=outputs)
    return graph, small


def layers_of_groups(graph):
    return [set(g.layers) for g in graph.groups]
