"""Batch norms corrected towards the dense net's: means and spreads behind the norm as they were."""

import torch
from copied_nets import Net, lively
from torch import nn

import dcodp


def test_means_and_spreads_behind_the_norm_are_as_they_were():
    torch.manual_seed(0)
    a, b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1, bias=False)
    dense = Net(lambda m, x: m.norm(m.b(m.a(x).relu())), a=a, b=b, norm=lively(nn.BatchNorm2d(4))).double().eval()
    batches = [torch.rand(16, 3, 16, 16, dtype=torch.float64)]
    graph = dcodp.trace(dense, batches[0])
    plan = dcodp.select(graph, {"a": torch.rand(8)}, ratio=0.5)
    small = dcodp.prune(dense, plan)
    better = dcodp.repair(dense, small, plan, batches, how="batchnorm")
    for net, close in ((small, False), (better, True)):
        pairs = [
            (f(net(batches[0])), f(dense(batches[0])))
            for f in (lambda y: y.mean((0, 2, 3)), lambda y: y.std((0, 2, 3)))
        ]
        assert all(torch.allclose(mine, theirs, rtol=1e-3) for mine, theirs in pairs) == close
    assert all(torch.equal(p, q) for p, q in zip(small.parameters(), better.parameters(), strict=True))
