"""Constructions of detectors that test_trace.py does not have: exact, and everything follows."""

import pytest
import torch
from small_nets import Net, conv, layers_of_groups, removed_at_half
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import DeformConv2d
from torchvision.ops.misc import FrozenBatchNorm2d

import dcodp
from dcodp.graph import tracing


def test_three_branches_are_one_group():
    """RepConv: 3×3, 1×1 and identity, each with its batch norm, added."""

    def forward(m, x):
        y = m.stem(x)
        return m.out((m.bn3(m.dense(y)) + m.bn1(m.point(y)) + m.bn0(y)).relu())

    model = Net(forward, stem=conv(3, 8), dense=conv(8, 8, 3, bias=False), point=conv(8, 8, bias=False), out=conv(8, 2),
                bn3=nn.BatchNorm2d(8), bn1=nn.BatchNorm2d(8), bn0=nn.BatchNorm2d(8))  # fmt: skip
    graph, small = removed_at_half(model)
    assert layers_of_groups(graph) == [{"stem", "dense", "point"}]
    assert small.bn0.num_features == small.dense.in_channels == small.dense.out_channels == 4


def test_spatial_pyramid_pooling_repeats_a_group():
    def forward(m, x):
        y = m.a(x)
        pools = [F.max_pool2d(y, k, 1, k // 2) for k in (3, 5, 7)]
        return m.out(torch.cat([y, *pools], 1))

    graph, small = removed_at_half(Net(forward, a=conv(3, 8), out=conv(32, 4)))
    assert [g.channels for g in graph.groups] == [8] and small.out.in_channels == 16
    assert next(s for s in graph.groups[0].sites if s.tensor == "out.weight").index.shape == (8, 4)


def test_deformable_convolution():
    model = Net(lambda m, x: m.out(m.deform(y := m.a(x), m.offsets(y))), a=conv(3, 8), offsets=conv(8, 18, 3),
                deform=DeformConv2d(8, 6, 3, padding=1), out=conv(6, 2))  # fmt: skip
    graph, small = removed_at_half(model)
    assert layers_of_groups(graph) == [{"a"}, {"deform"}]
    assert small.deform.weight.shape == (3, 4, 3, 3)
    assert (small.deform.in_channels, small.deform.out_channels) == (4, 3)
    assert any(f.layer == "offsets" and "deformable" in f.reason for f in graph.frozen)


def test_frozen_batch_norm():
    _, small = removed_at_half(nn.Sequential(conv(3, 8), FrozenBatchNorm2d(8), nn.ReLU(), conv(8, 2)))
    assert all(getattr(small[1], name).shape == (4,) for name in ("weight", "bias", "running_mean", "running_var"))


def test_top_down_additions_couple_the_laterals():
    """FPN: coarse maps enlarged and added to laterals of finer ones."""

    def forward(m, x):
        c1 = m.c1(x)
        c2 = m.c2(F.max_pool2d(c1, 2))
        top = m.lateral2(c2)
        return m.out1(m.lateral1(c1) + F.interpolate(top, scale_factor=2.0)), m.out2(top)

    model = Net(forward, c1=conv(3, 6), c2=conv(6, 8), lateral1=conv(6, 4), lateral2=conv(8, 4), out1=conv(4, 2),
                out2=conv(4, 2))  # fmt: skip
    graph, _ = removed_at_half(model)
    assert {"lateral1", "lateral2"} in layers_of_groups(graph)


@pytest.mark.parametrize(
    ("forward", "channels"),
    [
        (lambda m, x: m.out(F.glu(m.a(x), 1).repeat(1, 2, 1, 1)), [4]),
        (lambda m, x: m.out(F.instance_norm(m.a(x))), [8]),
        (lambda m, x: m.out(m.a(x).to(memory_format=torch.channels_last)), [8]),
        (lambda m, x: m.out(torch.einsum("bchw,cd->bdhw", m.a(x), m.mix)), [8, 8]),
        (lambda m, x: m.out(torch.where(m.a(x) > 0, m.a(x), m.a(x) * 0.1)), [8]),
        (lambda m, x: m.out(torch.stack([m.a(x), m.a(x)]).amax(0)), [8]),
        (lambda m, x: m.out(m.a(x).repeat_interleave(2, 1)[:, : m.a(x).shape[1]]), None),
        (lambda m, x: m.out(torch.cat(m.a(x)[:, -m.half :].split(m.half, 1) * 2, 1)), None),
        (lambda m, x: m.out(F.dropout2d(m.a(x), 0.5, m.training)), [8]),
        (lambda m, x: m.out(F.dropout(m.a(x), 0.5, m.training)), [8]),
    ],
)
def test_more_operations(forward, channels):
    model = Net(forward, a=conv(3, 8), out=conv(8, 2))
    model.mix, model.half = nn.Parameter(torch.rand(8, 8)), 4
    graph, _ = removed_at_half(model)
    assert channels is None or [g.channels for g in graph.groups] == channels


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm(affine):
    graph, small = removed_at_half(nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8, affine=affine), conv(8, 2)))
    assert not graph.groups or small[1].num_features == 4


def test_parameters_in_lists_go_with_their_channels():
    model = Net(lambda m, x: m.out(m.a(x) * m.scales[0]), a=conv(3, 8), out=conv(8, 2))
    model.scales = nn.ParameterList([torch.rand(1, 8, 1, 1)])
    _, small = removed_at_half(model)
    assert small.scales[0].shape == (1, 4, 1, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_model_on_a_gpu():
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), conv(8, 2)).cuda().eval()
    x = torch.rand(1, 3, 8, 8, device="cuda")
    state = torch.cuda.get_rng_state()
    graph = dcodp.trace(model, (x,))
    assert torch.equal(state, torch.cuda.get_rng_state())
    small = dcodp.prune(model, dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}))
    assert small[0].weight.shape[0] == 4 and small[0].weight.is_cuda and small(x).shape == (1, 2, 8, 8)


def test_windows_lose_whole_heads_with_their_channels():
    """torchvision's Swin divides by √(channels // heads): both shrink together, and the quotient stays."""
    model = SwinTransformer([4, 4], 16, [2], [4], [4, 4], stochastic_depth_prob=0.0, num_classes=5)
    graph, small = removed_at_half(model, torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert [g.channels for g in graph.groups] == [4, 64, 64]
    attention = small.features[1][0].attn
    assert attention.num_heads == 2 and attention.qkv.weight.shape == (24, 8)


def test_a_module_is_not_traced_again_for_a_small_view_where_a_larger_one_shrinks(monkeypatch):
    """Deformable attention: weights of points cannot go, head size of the values can; whole heads would end both."""

    class Points(nn.Module):
        def __init__(self, points):
            super().__init__()
            self.value, self.weights, self.proj = nn.Linear(3, 12), nn.Linear(3, 2 * points), nn.Linear(12, 4)
            self.heads, self.points = 2, points

        def forward(self, x):
            x = x.flatten(2).transpose(1, 2)[:, : self.points]
            value = self.value(x).view(*x.shape[:2], self.heads, -1)
            weights = self.weights(x).view(*x.shape[:2], self.heads, self.points).softmax(-1)
            return self.proj(torch.einsum("bqhp,bphd->bqhd", weights, value).flatten(2))

    looks, traced = [], tracing._traced
    monkeypatch.setattr(tracing, "_traced", lambda *a, **k: looks.append(a[-1]) or traced(*a, **k))
    _, small = removed_at_half(Points(4))
    assert small.value.out_features == 6 and looks == [frozenset()]
    looks.clear()
    removed_at_half(Points(40), torch.rand(1, 3, 8, 8, dtype=torch.float64))
    assert len(looks) == 2, "where more hangs on the view that is stuck, the other way is tried"
