"""Copies that answer from what the dense net gave: the same outputs bit by bit, and less work."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import dcodp
from dcodp.compose import cells, register
from dcodp.config import ModelConfig
from dcodp.detectors.registry import build
from dcodp.graph.tracing import result_tensors
from dcodp.pruning import make_plan
from dcodp.repairs.reuse import Reuse
from dcodp.yolo.shrinking import Shrinking

ROOT = Path(__file__).resolve().parents[2]
X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FAMILIES = [("yolov8", "n"), ("yolov7", "tiny_test"), ("faster_rcnn", "tiny_test"), ("retinanet", "tiny_test"),
            ("fcos", "tiny_test"), ("ssd", "tiny_test")]  # fmt: skip


def conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Written(nn.Module):
    """Writes into what its modules gave, and into a list that it is given."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second, self.last = conv(3, 8), nn.BatchNorm2d(8), conv(8, 8), conv(8, 4)
        self.sum, self.relu = Summed(), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.first(x)
        y += 1.0
        z = self.relu(self.norm(y))
        w = self.second(z)
        w.mul_(2.0)
        return self.last(self.sum([w, z]))


class Summed(nn.Module):
    def forward(self, parts):
        parts[0] = parts[0] * 1.5
        return parts[0] + parts[1]


class Shared(nn.Module):
    """One head on maps of two sizes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = conv(3, 8), conv(8, 8), nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 2))

    def forward(self, x):
        y = self.first(x).relu()
        z = self.second(y[..., ::2, ::2]).relu()
        return [self.head(y), self.head(z)]


def pruned(model, graph, group):
    """Without half of one group."""
    plan = make_plan(graph, {group.name: list(range(group.channels // 2))})
    return dcodp.prune(model, plan), plan


@pytest.mark.parametrize("kind", [Written, Shared])
def test_outputs_are_those_of_the_whole_copy(kind):
    torch.manual_seed(0)
    model = kind().eval()
    graph = dcodp.trace(model, (X,))
    run = torch.no_grad()(lambda net: [t.clone() for t in result_tensors(net(X.clone()))])
    before = run(model)
    reuse = Reuse(model, run)
    for group in [*graph.groups, *graph.groups]:  # twice: a use must leave the record as it was
        small, plan = pruned(model, graph, group)
        wanted = run(small)
        with reuse.applied(small, plan):
            found = run(small)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        assert all("forward" not in vars(module) for module in small.modules())
    torch.testing.assert_close(run(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("name, variant", FAMILIES)
def test_every_family_loses_the_same_with_it(name, variant):
    torch.manual_seed(0)
    detector, _ = build(ModelConfig(name=name, family=name, variant=variant), ("a", "b"))
    detector.network.eval()
    graph = detector.coupling_graph(64)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    lost = detector.losses_on(images)
    reuse = Reuse(detector.network, lost)
    for group in (graph.groups[0], graph.groups[len(graph.groups) // 2], graph.groups[-1]):
        small, plan = pruned(detector.network, graph, group)
        ran = []
        for module in small.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        wanted, whole = lost(small), len(ran)
        with reuse.applied(small, plan):
            assert lost(small) == wanted
        assert whole <= len(ran) <= 2 * whole
    assert len(ran) < 2 * whole  # of the last group not all was computed again


def test_what_comes_before_the_change_is_not_computed_again():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(conv(3 if i == 0 else 8, 8), nn.ReLU()) for i in range(4)), conv(8, 2)).eval()
    graph = dcodp.trace(model, (X,))
    run = torch.no_grad()(lambda net: net(X))
    reuse, ran = Reuse(model, run), []
    small, plan = pruned(model, graph, graph.groups[2])
    for name, module in small.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _a, _o, name=name: ran.append(name))
    with reuse.applied(small, plan):
        run(small)
    assert ran == ["2.0", "3.0", "4"]
    ran.clear()
    with reuse.applied(small, plan):
        small(X + 1)  # other images
    assert len(ran) == 5


def test_a_repair_that_moves_other_modules_is_seen():
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 2)).eval()
    graph = dcodp.trace(model, (X,))
    run = torch.no_grad()(lambda net: net(X))
    reuse = Reuse(model, run)
    small, plan = pruned(model, graph, graph.groups[1])
    small[1].running_mean += 0.5
    wanted = run(small)
    with reuse.applied(small, plan):
        assert torch.equal(run(small), wanted)


def test_memory_decides_how_deep_results_are_kept():
    model = nn.Sequential(nn.Sequential(conv(3, 8), nn.ReLU()), nn.Sequential(conv(8, 8), nn.ReLU())).eval()
    run = torch.no_grad()(lambda net: net(X))
    each = 2 * 8 * 16 * 16 * 4  # bytes of a map
    kept = {memory: set(Reuse(model, run, memory)._calls) for memory in (each, 2 * each, 6 * each)}
    assert kept == {each: set(), 2 * each: {"0", "1"}, 6 * each: {"0", "1", "0.0", "0.1", "1.0", "1.1"}}


def test_sensitivity_is_the_same_without_it(monkeypatch):
    """The whole measurement, repairs included, on a detector."""
    torch.manual_seed(0)
    register()
    detector, _ = build(ModelConfig(), ("a", "b"))
    detector.network.eval()
    batches = [torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)]
    ((_, method),) = cells(ROOT / "conf", ["method=strong"])
    shrinking = Shrinking(detector, batches, method)
    shrinking.scores = dict(list(shrinking.scores.items())[::20])  # of three groups
    found = shrinking._sensitivity(2)
    monkeypatch.setattr(Reuse, "applied", lambda *_: nullcontext())
    assert found == shrinking._sensitivity(2)
