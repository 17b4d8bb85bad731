"""What is not understood is frozen with a reason; no construction makes a wrong net."""

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F

import dcodp
from dcodp.graph import rules


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def in_place_through_a_view(m, x):
    y = m.a(x)
    y[:, :4].mul_(3)
    return m.out(y)


def written_into_zeros(m, x):
    y = torch.zeros(len(x), 8, 8, 8, dtype=x.dtype)
    y[:, :8] = m.a(x)
    return m.out(y)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.out(Double.apply(m.a(x))),
        lambda m, x: m.out(m.a(x)[:, m.a(x).mean((0, 2, 3)).argsort()]),
        lambda m, x: m.out(m.a(x)[:, m.order]),
        lambda m, x: m.out(m.a(x).roll(1, 1)),
        lambda m, x: m.out(m.a(x).flip(1)),
        lambda m, x: m.out(m.a(x).softmax(1)),
        lambda m, x: m.out(m.a(x)[:, ::2].repeat(1, 2, 1, 1)),
        lambda m, x: m.out(torch.ops.aten.roll(m.a(x), [2], [1])),
        lambda m, x: m.out(torch.cumsum(m.a(x), 1)),
        lambda m, x: m.out(nn.functional.layer_norm(m.a(x), (8, 8, 8))),
        lambda m, x: m.out(nn.functional.pad(m.a(x)[:, :6], (0, 0, 0, 0, 1, 1))),
        in_place_through_a_view,
        written_into_zeros,
    ],
)
def test_what_is_not_understood_is_frozen_and_never_wrong(forward):
    model = Net(forward, a=conv(3, 8, 3), out=conv(8, 2))
    model.register_buffer("order", torch.tensor([3, 1, 2, 0, 4, 5, 7, 6]))
    removed_at_half(model)


def read_at(position):
    """What of an output channel's value is read where the sum over all channels is taken."""

    def forward(m, x):
        y = m.a(x)
        position(y)
        return m.out(y) + y.sum(1, keepdim=True)

    return forward


def add_to_a_view(y):
    y[:, :4].add_(1)


def add_to_a_named_view(y):
    part = y[:, :4]
    part += 1


def fill_a_view(y):
    y[:, :4] = 0.3


@pytest.mark.parametrize("write", [add_to_a_view, add_to_a_named_view, fill_a_view])
def test_removed_channels_are_not_zero_after_a_write_through_a_view(write):
    graph, _ = removed_at_half(Net(read_at(write), a=conv(3, 8, 3), out=conv(8, 2)))
    assert graph.groups == [] and "sum" in graph.frozen[0].reason


def test_a_sum_over_channels_prunes_where_removed_ones_are_zero():
    graph, _ = removed_at_half(Net(read_at(lambda y: None), a=conv(3, 8, 3), out=conv(8, 2)))
    assert [g.name for g in graph.groups] == ["a"]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.out(y := m.a(x)) / y.shape[1],
        lambda m, x: m.out(y := m.a(x)) * y.size(1) ** -0.5,
        lambda m, x: m.out(y := m.a(x)) * float(y.shape[1]),
        lambda m, x: m.out(y := m.a(x)) + y.shape[1] * 0.1,
        lambda m, x: m.out(y := m.a(x)) + torch.ones(y.shape[1]).sum(),
        lambda m, x: m.out((y := m.a(x)) * torch.linspace(0, 1, y.shape[1])[None, :, None, None]),
    ],
)
def test_a_number_of_channels_used_as_a_value_stays(forward):
    graph, _ = removed_at_half(Net(forward, a=conv(3, 8, 3), out=conv(8, 2)))
    assert graph.groups == [] and graph.frozen[0].layer == "a"


def test_numbers_found_equal_stay_equal():
    def forward(m, x):
        y, z = m.a(x), m.b(x)
        return m.out(y) * (2 if y.shape[1] == z.shape[1] else 1) + m.out(z)

    removed_at_half(Net(forward, a=conv(3, 8), b=conv(3, 8), out=conv(8, 2)))

    def asserts(m, x):
        y = m.a(x)
        assert y.shape[1] == m.width
        return m.out(y)

    model = Net(asserts, a=conv(3, 8), out=conv(8, 2))
    model.width = 8
    _, small = removed_at_half(model)
    assert small.width == small.a.out_channels == 4


@pytest.mark.parametrize("layer", [nn.GRU(8, 5, batch_first=True), nn.LSTM(8, 5, batch_first=True), nn.RNN(8, 5)])
def test_recurrent_layers_keep_their_sizes(layer):
    model = Net(lambda m, x: m.rnn(m.a(x).flatten(2).transpose(1, 2))[0], a=conv(3, 8), rnn=layer)
    graph, _ = removed_at_half(model)
    assert graph.groups == [] and any("keeps the sizes of its parameters" in f.reason for f in graph.frozen)


class MultiHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        y = self.inp(x.flatten(2).transpose(1, 2))
        return self.out(self.attention(y, y, y)[0])


@pytest.mark.parametrize(
    "model",
    [
        MultiHead(),
        Net(lambda m, x: m.out(F.layer_norm(m.a(x).movedim(1, -1), (8,))), a=conv(3, 8), out=nn.Linear(8, 2)),
        Net(lambda m, x: m.out(m.a(x)) + sum(m.a(x)[:, i : i + 1] for i in range(8)), a=conv(3, 8), out=conv(8, 2)),
        Net(lambda m, x: m.out(m.a(x)) * m.a(x).abs().max().item(), a=conv(3, 8), out=conv(8, 2)),
        Net(lambda m, x: m.out(m.a(x).view(2, 4, 2, 8, 8).amax(2)), a=conv(3, 8), out=conv(4, 2)),
        Net(lambda m, x: m.a(x).flatten(2) @ m.a(x).flatten(2).transpose(1, 2), a=conv(3, 8)),
    ],
)
def test_more_that_mixes_channels(model):
    graph, _ = removed_at_half(model)
    assert graph.groups == [] and all(f.reason for f in graph.frozen)


def test_a_rule_that_fails_freezes_what_it_touched_and_says_so(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("no such luck")

    monkeypatch.setitem(rules.TABLE, "aten::cat", broken)
    model = Net(lambda m, x: m.out(torch.cat([m.a(x), m.a(x)], 1)), a=conv(3, 8), out=conv(16, 2))
    graph = dcodp.trace(model, (IMAGE.float(),))
    assert graph.groups == []
    assert "ZeroDivisionError: no such luck" in graph.frozen[0].reason and "the model" in graph.frozen[0].reason


def test_every_reason_says_where():
    def forward(m, x):
        return m.out(m.a(x) * torch.arange(8.0, dtype=x.dtype)[None, :, None, None])

    graph, _ = removed_at_half(Net(forward, a=conv(3, 8), out=conv(8, 2)))
    assert all(f.reason.endswith(")") for f in graph.frozen)
