"""Statistics over channels and over weights, attention's scale, shared modules, memory formats, kept attributes."""

import copy

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F

import dcodp


def attention(m, x):
    y = m.inp(x.flatten(2).transpose(1, 2))
    q, k, v = (t.unflatten(-1, (m.heads, -1)).transpose(1, 2) for t in (m.q(y), m.k(y), m.v(y)))
    return m.out(F.scaled_dot_product_attention(q, k, v, attn_mask=m.mask).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("shape", [(64, 64), (2, 64, 64), (2, 2, 64, 64), None])
def test_attention_keeps_what_its_scale_is_read_from(shape):
    model = Net(
        attention, inp=nn.Linear(3, 8), q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8), out=nn.Linear(8, 2)
    )
    model.heads, model.mask = 2, None if shape is None else torch.rand(shape).double()
    graph, small = removed_at_half(model)
    assert small.q.out_features == 4 * small.heads and "inp" in [g.name for g in graph.groups]


class Standardised(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.standardised(), self.bias)

    def standardised(self):
        return F.batch_norm(self.weight.flatten(1)[None], None, None, training=True).view_as(self.weight)


class Centred(Standardised):
    def standardised(self):
        return self.weight - self.weight.mean((1, 2, 3), keepdim=True)


class UnitNorm(Standardised):
    def standardised(self):
        return F.normalize(self.weight.flatten(1), dim=1).view_as(self.weight)


class UnitVariance(Standardised):
    def standardised(self):
        return self.weight / (self.weight.std((1, 2, 3), keepdim=True) + 1e-3)


@pytest.mark.parametrize("kind", [Standardised, Centred, UnitNorm, UnitVariance])
def test_statistics_of_weights(kind):
    removed_at_half(nn.Sequential(kind(3, 8, 1), nn.ReLU(), kind(8, 8, 1), nn.ReLU(), conv(8, 2)))


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrised_weights(wrap):
    removed_at_half(nn.Sequential(conv(3, 8), nn.ReLU(), wrap(conv(8, 8)), nn.ReLU(), conv(8, 2)))


def test_a_module_with_several_names_is_sliced_once():
    shared = nn.Sequential(conv(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    _, small = removed_at_half(nn.Sequential(conv(3, 8), shared, shared, conv(8, 2)))
    assert small[1] is small[2] and small[1][0].in_channels == 4


@pytest.mark.parametrize("activation", [nn.Hardswish(), nn.Hardswish(True), nn.LogSigmoid(), nn.Mish(True), nn.RReLU(),
                                        nn.Threshold(0.1, 0.0, True), nn.CELU(), nn.Hardtanh()])  # fmt: skip
def test_activations_pass(activation):
    assert len(removed_at_half(nn.Sequential(conv(3, 8), copy.deepcopy(activation), conv(8, 2)))[0].groups) == 1


def test_memory_formats_change_nothing():
    def forward(m, x):
        y = m.a(x)
        return m.out(y * m.fc(F.adaptive_avg_pool2d(y, 1)).sigmoid())

    model = Net(forward, a=conv(3, 8), fc=conv(8, 8), out=conv(8, 2)).to(memory_format=torch.channels_last)
    assert len(removed_at_half(model)[0].groups) == 1


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.out(F.conv2d(m.a(x), m.blur.repeat(m.a(x).shape[1], 1, 1, 1), groups=m.a(x).shape[1])),
        lambda m, x: m.out(F.conv2d(m.a(x), m.blur.expand(m.a(x).shape[1], 1, 3, 3), groups=m.a(x).shape[1])),
        lambda m, x: m.out(F.fold(F.unfold(m.a(x), 3, padding=1), (8, 8), 3, padding=1)),
        lambda m, x: m.out(torch.fft.fft2(m.a(x)).real),
        lambda m, x: m.out(m.a(x).view(1, -1, 8, 8).view(len(x), -1, 8, 8)),
    ],
)
def test_filters_from_buffers_and_patches(forward):
    model = Net(forward, a=conv(3, 8), out=conv(8, 2))
    model.register_buffer("blur", torch.rand(1, 1, 3, 3))
    assert [g.channels for g in removed_at_half(model)[0].groups] == [8]


class ChannelsFirst(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class HandWrittenNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(c)), 1e-4

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps) * self.weight[:, None, None]


class Last(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("norm", [ChannelsFirst(8), HandWrittenNorm(8), Last(nn.LayerNorm(8)), Last(nn.RMSNorm(8)),
                                  Last(nn.LayerNorm(8, elementwise_affine=False))])  # fmt: skip
def test_norms_over_channels_are_exact(norm, tmp_path):
    model = nn.Sequential(conv(3, 8), copy.deepcopy(norm), nn.GELU(), conv(8, 2))
    graph, small = removed_at_half(model)
    assert [g.name for g in graph.groups] == ["0"] and small[0].out_channels == 4
    plan = dcodp.select(graph, {"0": torch.arange(8.0)})
    small = dcodp.prune(model, plan)
    dcodp.save(small, plan, tmp_path / "small.safetensors")
    loaded = dcodp.load(model, tmp_path / "small.safetensors")
    assert torch.equal(loaded(IMAGE), small(IMAGE)) and torch.equal(copy.deepcopy(small)(IMAGE), small(IMAGE))
    again = dcodp.trace(small, (IMAGE,))
    assert [g.channels for g in again.groups] == [4]


class Block(nn.Module):
    """`in_chs` and `groups` are there for fusing alone."""

    def __init__(self):
        super().__init__()
        self.in_chs, self.groups, self.unrelated = 16, 4, 7
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=4)

    def forward(self, x):
        return self.conv(x)


def test_attributes_that_the_forward_pass_does_not_read_follow():
    _, small = removed_at_half(nn.Sequential(conv(3, 16), Block(), conv(16, 2)))
    assert (small[1].in_chs, small[1].groups, small[1].unrelated) == (8, 2, 7)


def test_plain_tensors_are_saved(tmp_path):
    model = Net(lambda m, x: m.out(m.a(x)) * m.features, a=conv(3, 8), out=conv(8, 2)).double().eval()
    model.features = torch.rand(2, 1, 1).double()
    graph = dcodp.trace(model, (IMAGE,))
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups})
    small = dcodp.prune(model, plan)
    dcodp.save(small, plan, tmp_path / "net.safetensors")
    other = copy.deepcopy(model)
    other.features = torch.zeros(2, 1, 1).double()
    assert torch.equal(dcodp.load(other, tmp_path / "net.safetensors")(IMAGE), small(IMAGE))
    small.features = {"told": small.features}
    with pytest.raises(dcodp.InputError, match="features is a dict with tensors"):
        dcodp.save(small, plan, tmp_path / "net.safetensors")
