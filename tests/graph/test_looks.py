"""More ways to look at a number of channels, and caches between traces: it stays, or what follows is exact."""

import collections
import decimal
import fractions
import functools
import itertools
import math
import operator
import struct

import numpy as np
import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F

import dcodp


def matched(c):
    match c:
        case 16:
            return 2
        case _:
            return 3


def halvings(c):
    count = 0
    while c > 1:
        c, count = c // 2, count + 1
    return count


DECIDES = {
    "match": matched,
    "loop": halvings,
    "count": lambda c: collections.Counter([c])[16],
    "default dict": lambda c: len(collections.defaultdict(list, {c: 1}) | {16: 2}),
    "set of it": lambda c: len({c} | {16}),
    "ordered": lambda c: sorted([c, 12])[0],
    "bisect": lambda c: np.searchsorted([4, 12], c) + 1,
    "list repeated": lambda c: len([0] * c),
    "text repeated": lambda c: len("a" * c),
    "slice": lambda c: len(range(99)[:c]),
    "islice": lambda c: len(list(itertools.islice(range(99), c))),
    "percent": lambda c: len(format(c, "03d") * 3),
    "joined": lambda c: len("-".join(map(str, [c, 2]))),
    "fraction": lambda c: float(fractions.Fraction(c, 3)),
    "decimal": lambda c: float(decimal.Decimal(c)),
    "bytes": lambda c: struct.pack("i", c)[0],
    "index": operator.index,
    "power": lambda c: 2**c / 2**10,
    "low bit": lambda c: c & -c,
    "upwards": lambda c: -(-c // 3),
    "root of numpy": np.sqrt,
    "numpy's number": lambda c: int(np.int64(c)),
    "numpy's product": lambda c: float(np.prod([c, 2])),
    "seed": lambda c: torch.rand(1, generator=torch.Generator().manual_seed(c)).double(),
    "filled": lambda c: torch.full((1,), c).double(),
    "tensor of sizes": lambda c: torch.as_tensor([c, 2]).double()[0],
    "hypotenuse": lambda c: math.hypot(c, 3),
    "three-way": lambda c: (c > 8) - (c < 8),
    "all": lambda c: 2 if all(c >= n for n in (4, 12)) else 3,
    "sum": lambda c: sum([c, 1]),
    "reduced": lambda c: functools.reduce(operator.mul, [c, 2]),
    "walrus": lambda c: (half := c // 2) * 3 + half,
}


@pytest.mark.parametrize("name", DECIDES)
def test_it_stays(name):
    model = Net(lambda m, x: m.out(y := m.a(x)) * DECIDES[name](y.shape[1]), a=conv(3, 16, 3), out=conv(16, 2))
    graph, _ = removed_at_half(model)
    assert graph.groups == [] and "decides something" in graph.frozen[0].reason


SHAPES = {
    "compared": lambda m, y: 2 if y.shape == (2, 16, 8, 8) else 3,
    "its end": lambda m, y: 2 if tuple(y.shape[1:]) == (16, 8, 8) else 3,
    "in a set": lambda m, y: 2 if y.shape in {(2, 16, 8, 8)} else 3,
    "largest": lambda m, y: max(y.shape),
    "product": lambda m, y: math.prod(y.shape),
    "as an array": lambda m, y: float(np.array(y.shape).max()),
    "written": lambda m, y: len(str(tuple(y.shape))),
    "of a layer": lambda m, y: m.a.out_channels,
    "of a layer, compared": lambda m, y: 2 if m.out.in_channels > 12 else 3,
    "of a layer, its root": lambda m, y: m.out.in_channels**-0.5,
    "of a norm": lambda m, y: m.norm.num_features,
    "of a layer norm": lambda m, y: m.layer.normalized_shape[0],
    "of a weight": lambda m, y: m.a.weight.size(0),
    "of parameters": lambda m, y: sum(p.numel() for p in m.a.parameters()),
    "kept": lambda m, y: setattr(m, "seen", y.shape[1]) or m.seen,
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_and_numbers_of_layers(name):
    def forward(m, x):
        y = m.norm(m.a(x))
        return m.out(m.layer(y.movedim(1, -1)).movedim(-1, 1)) * SHAPES[name](m, y)

    model = Net(forward, a=conv(3, 16, 3), norm=nn.BatchNorm2d(16), layer=nn.LayerNorm(16), out=conv(16, 2))
    graph, small = removed_at_half(model)
    assert graph.groups == [] and small.a.out_channels == 16


FOLLOWS = {
    "a view by a layer's number": lambda m, y: y.view(2, m.a.out_channels, 64).unflatten(-1, (8, 8)),
    "halves by a layer's number": lambda m, y: torch.cat(y.split(m.a.out_channels // 2, 1)[::-1], 1),
    "a view by a norm's number": lambda m, y: y.reshape(2, m.norm.num_features, 8, 8),
    "a view by a weight": lambda m, y: y.reshape(2, m.a.weight.shape[0], 8, 8),
    "numpy's one": lambda m, y: y.view(2, np.int64(1) * y.shape[1], 8, 8),
    "zeros of a layer's size": lambda m, y: y + torch.zeros(1, m.a.out_channels, 1, 1, dtype=y.dtype),
    "groups of a layer's number": lambda m, y: F.conv2d(y, m.mean.repeat(y.shape[1], 1, 1, 1), groups=m.a.out_channels),
    "wavelets": lambda m, y: F.conv2d(y, m.four.repeat(y.shape[1], 1, 1, 1), groups=y.shape[1]).unflatten(1, (-1, 4))[
        :, :, 0
    ],
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_follows(name):
    model = Net(
        lambda m, x: m.out(FOLLOWS[name](m, m.norm(m.a(x)))), a=conv(3, 8), norm=nn.BatchNorm2d(8), out=conv(8, 2)
    )
    model.register_buffer("mean", torch.full((1, 1, 1, 1), 0.5))
    model.register_buffer("four", torch.rand(4, 1, 1, 1))
    assert removed_at_half(model)[1].a.out_channels == 4


@functools.lru_cache
def halved(size):
    return size // 2


@functools.cache
def second(shape):
    return shape[1] // 2


class Cached(nn.Module):
    @functools.lru_cache  # noqa: B019
    def half(self, size):
        return size // 2


KNOWN = {}


def remembered(size):
    if size not in KNOWN:
        KNOWN[size] = size // 2
    return KNOWN[size]


CACHES = {
    "function": lambda m, y: halved(y.shape[1]),
    "of a shape": lambda m, y: second(tuple(y.shape)),
    "method": lambda m, y: m.cached.half(y.shape[1]),
    "by keyword": lambda m, y: halved(size=y.shape[1]),
    "partial": lambda m, y: functools.partial(halved, y.shape[1])(),
    "dictionary": lambda m, y: remembered(y.shape[1]),
    "attribute": lambda m, y: m.__dict__.setdefault("width", y.shape[1] // 2),
}


@pytest.mark.parametrize("name", CACHES)
def test_caches(name):
    def forward(m, x):
        y = m.a(x)
        half = CACHES[name](m, y)
        return m.out(y[:, :half] + y[:, half:])

    model = Net(forward, a=conv(3, 16), out=conv(8, 2), cached=Cached())
    first = sum(g.channels for g in dcodp.trace(model.double(), (IMAGE,)).groups)
    model(IMAGE)
    assert sum(g.channels for g in removed_at_half(model)[0].groups) == first
    assert first == (0 if name in ("dictionary", "partial") else 8)
