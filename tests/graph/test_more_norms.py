"""Norms over channels, written in many ways: those that are one lose channels exactly, the others are told apart."""

import copy

import onnx
import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F

import dcodp
from dcodp.testing import assert_equivalent


class Written(nn.Module):
    """`formula(x, weight, bias)` over dimension 1; called a norm, so that it is tried."""

    def __init__(self, formula, bias=True):
        super().__init__()
        self.weight, self.formula, self.eps = nn.Parameter(torch.ones(8)), formula, 1e-4
        self.bias = nn.Parameter(torch.zeros(8)) if bias else None

    def forward(self, x):
        weight, bias = (None if v is None else v[:, None, None] for v in (self.weight, self.bias))
        y = self.formula(x) * weight
        return y if bias is None else y + bias


class NormOfMine(Written):
    pass


def layer(x):
    variance, mean = torch.var_mean(x, 1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-4).sqrt()


def by_hand(x):
    centred = x - x.mean(1, keepdim=True)
    return centred * torch.rsqrt(centred.pow(2).mean(1, keepdim=True) + 1e-4)


def one_group(x):
    return F.group_norm(x, 1, eps=1e-4)


def root_mean_square(x):
    return x * (x.square().mean(1, keepdim=True) + 1e-4) ** -0.5


def unit_length(x):
    """torch's `F.normalize` times √C, for which eps is added elsewhere."""
    return F.normalize(x, dim=1) * 8**0.5


def unbiased(x):
    variance, mean = torch.var_mean(x, 1, keepdim=True)
    return (x - mean) / (variance + 1e-4).sqrt()


def half(x):
    return x * torch.rsqrt(x[:, :4].square().mean(1, keepdim=True) + 1e-4)


def by_a_size(x):
    return layer(x) * x.shape[1] / 8


def absolute(x):
    return x / (x.abs().mean(1, keepdim=True) + 1e-4)


EXACT = (layer, by_hand, one_group, root_mean_square)
OTHERS = (unit_length, unbiased, half, by_a_size, absolute)


@pytest.mark.parametrize("formula", EXACT)
@pytest.mark.parametrize("bias", [False, True])
def test_whoever_writes_one(formula, bias):
    _, small = removed_at_half(nn.Sequential(conv(3, 8), NormOfMine(formula, bias), nn.GELU(), conv(8, 2)))
    assert small[0].out_channels == 4 and len(small[1].weight) == 4


@pytest.mark.parametrize("formula", OTHERS)
def test_what_is_called_a_norm_and_is_none_is_never_wrong(formula):
    graph, small = removed_at_half(nn.Sequential(conv(3, 8), NormOfMine(formula), nn.GELU(), conv(8, 2)))
    assert small[0].out_channels == 4 or next(f.reason for f in graph.frozen if f.layer == "0")


class Last(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


LIBRARY = {
    "one group": nn.GroupNorm(1, 8),
    "one group, no scale": nn.GroupNorm(1, 8, affine=False),
    "no bias": Last(nn.LayerNorm(8, bias=False)),
    "large eps": Last(nn.LayerNorm(8, eps=1.0)),
    "list": Last(nn.LayerNorm([8])),
    "rms without eps": Last(nn.RMSNorm(8, eps=None)),
    "rms without scale": Last(nn.RMSNorm(8, elementwise_affine=False)),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_of_torch(name, tmp_path):
    model = nn.Sequential(conv(3, 8), copy.deepcopy(LIBRARY[name]), nn.GELU(), conv(8, 2))
    _, small = removed_at_half(model)
    assert small[0].out_channels == 4
    assert [g.channels for g in dcodp.trace(small, (IMAGE,)).groups] == [4]
    with torch.no_grad():
        torch.onnx.export(small.float(), (IMAGE.float(),), tmp_path / "net.onnx", dynamo=False)
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert kinds <= {"Conv", "Transpose", "ReduceSum", "Sub", "Mul", "Add", "Div", "Sqrt", "Erf", "Constant", "Reshape",
                     "Reciprocal", "Pow", "Cast", "Shape", "Gather", "Identity", "Gelu"}  # fmt: skip


def net(forward, **layers):
    return Net(forward, a=conv(3, 8), out=conv(8, 2), **layers)


def last(norm, y):
    return norm(y.movedim(1, -1)).movedim(-1, 1)


CONTEXTS = {
    "of two branches": lambda: Net(
        lambda m, x: m.out(last(m.n, torch.cat([m.a(x), m.b(x)], 1))), a=conv(3, 8), b=conv(3, 6), n=nn.LayerNorm(14),
        out=conv(14, 2),
    ),
    "then cut": lambda: net(lambda m, x: m.out(torch.cat(last(m.n, m.a(x)).chunk(2, 1)[::-1], 1)), n=nn.LayerNorm(8)),
    "of a norm": lambda: net(lambda m, x: m.out(last(m.k, last(m.n, m.a(x)))), n=nn.LayerNorm(8), k=nn.LayerNorm(8)),
    "of a sum": lambda: net(lambda m, x: m.out(last(m.n, (y := m.a(x)) + m.b(y))), n=nn.LayerNorm(8), b=conv(8, 8)),
    "shared by maps": lambda: net(
        lambda m, x: m.out(last(m.n, m.a(x)) + last(m.n, m.b(x))), n=nn.LayerNorm(8), b=conv(3, 8)
    ),
    "its scale read again": lambda: net(
        lambda m, x: m.out(last(m.n, m.a(x)) * m.n.weight[:, None, None]), n=nn.LayerNorm(8)
    ),
    "pixels of one group": lambda: net(lambda m, x: m.out(m.n(F.pixel_unshuffle(m.b(x), 2).repeat(1, 1, 2, 2))),
                                       b=conv(3, 2), n=nn.GroupNorm(1, 8)),
    "behind a window": lambda: net(
        lambda m, x: m.out(last(m.n, m.a(x).unflatten(2, (2, 4)).transpose(2, 3).flatten(2, 3))), n=nn.RMSNorm(8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTEXTS)
def test_in_context(name):
    graph, _ = removed_at_half(CONTEXTS[name]())
    assert all("not used" in f.reason for f in graph.frozen if f.layer in ("a", "b"))


class OnlyInEvaluation(NormOfMine):
    def forward(self, x):
        return x * self.weight[:, None, None] if self.training else super().forward(x)


NOT_ALWAYS = {
    "off in training": lambda: net(lambda m, x: m.out(m.n(m.a(x))), n=OnlyInEvaluation(layer)),
    "of rows with a bias": lambda: net(lambda m, x: m.out(last(m.n, m.a(x))) + m.n(m.table).sum(), n=nn.LayerNorm(8)),
    "of what is never 0": lambda: net(lambda m, x: m.out(last(m.n, m.a(x) + 1)), n=nn.LayerNorm(8)),
    "of all positions": lambda: net(lambda m, x: m.out(m.n(m.a(x))), n=nn.LayerNorm([8, 8, 8])),
    "two groups": lambda: net(lambda m, x: m.out(m.n(m.a(x))), n=nn.GroupNorm(2, 8)),
}


@pytest.mark.parametrize("name", NOT_ALWAYS)
def test_what_must_not_be_taken_for_one(name):
    model = NOT_ALWAYS[name]()
    model.table = nn.Parameter(torch.rand(3, 8))
    graph, small = removed_at_half(model)
    if name in ("off in training", "of what is never 0", "of all positions"):
        assert small.a.out_channels == 8 and next(f.reason for f in graph.frozen if f.layer == "a")


class Squared(NormOfMine):
    def forward(self, x):
        return layer(x) * self.weight.square()[:, None, None]


class InFloat(nn.RMSNorm):
    """Computes in float32 whatever it is given, as large language models' do."""

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


def test_parameters_that_happen_to_be_1_do_not_mislead():
    model = nn.Sequential(conv(3, 8), Squared(layer, bias=False), conv(8, 2)).double().eval()
    assert dcodp.trace(model, (IMAGE,)).groups == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_numbers(dtype):
    norms = (Last(InFloat(8, eps=1e-6)), nn.GroupNorm(1, 8), Last(nn.LayerNorm(8)), Last(nn.RMSNorm(8, eps=1e-5)))
    for norm in norms:
        model = nn.Sequential(conv(3, 8), norm, nn.GELU(), conv(8, 2)).to(dtype).eval()
        x = (IMAGE.to(dtype),)
        graph = dcodp.trace(model, x)
        plan = dcodp.select(graph, {"0": torch.rand(8)})
        assert_equivalent(model, dcodp.prune(model, plan), plan, x)


def test_what_a_short_dtype_cannot_tell_from_one_is_not_taken_for_one():
    model = nn.Sequential(conv(3, 8), NormOfMine(unbiased), conv(8, 2)).to(torch.bfloat16).eval()
    assert dcodp.trace(model, (IMAGE.to(torch.bfloat16),)).groups == []


class Tokens(nn.Module):
    """A vision transformer's entrance: patches, a token in front, positions added, a norm; then attention of its own
    and a hidden layer, each behind a norm of its own and added."""

    def __init__(self):
        super().__init__()
        self.patches, self.out = nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 5)
        self.token, self.positions = nn.Parameter(torch.rand(1, 1, 16)), nn.Parameter(torch.rand(1, 17, 16))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)
        self.wide, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        x = x + self.proj((q @ k.transpose(1, 2) * 0.25).softmax(-1) @ v)
        x = x + self.narrow(F.gelu(self.wide(self.norms[1](x))))
        return self.out(self.norms[2](x)[:, 0])


def test_positions_of_a_vision_transformer_do_not_hold_its_channels():
    """A parameter has a label for each position too; where it is added to what has none, its channels stay free."""
    graph, small = removed_at_half(Tokens())
    assert sorted(group.channels for group in graph.groups) == [16, 16, 32]  # equal pieces of qkv go together
    assert small.positions.shape == (1, 17, 8) and small.token.shape == (1, 1, 8)
    assert all(norm.dense_channels == 16 and norm.weight.shape == (8,) for norm in small.norms)
