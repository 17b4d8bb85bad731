"""What PyTorch reads inside its own functions, and statistics over weights: pruned exactly or left with a reason."""

import pytest
import torch
from small_nets import Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def tokens(y):
    return y.flatten(2).mT


def maps(t):
    return t.mT.unflatten(-1, (8, 8))


INSIDE = {
    "cosine of prototypes": lambda m, y: y * F.cosine_similarity(y, m.table[:1, :, None, None], dim=1)[:, None],
    "pairwise distance": lambda m, y: y * F.pairwise_distance(y.movedim(1, -1), 2 * y.movedim(1, -1))[:, None],
    "normalised by the largest": lambda m, y: F.normalize(y, p=float("inf"), dim=1),
    "normalised by the sum": lambda m, y: F.normalize(y, p=1.0, dim=1),
    "local response": lambda m, y: F.local_response_norm(y, 3),
    "root mean square": lambda m, y: F.rms_norm(y.movedim(1, -1), [8]).movedim(-1, 1),
    "layer norm of a size": lambda m, y: F.layer_norm(y.movedim(1, -1), [y.shape[1]]).movedim(-1, 1),
    "one group": lambda m, y: F.group_norm(y, 1),
    "as many groups as channels": lambda m, y: F.group_norm(y, y.shape[1]),
    "pairs": lambda m, y: F.group_norm(y, y.shape[1] // 2),
    "instance norm": lambda m, y: F.instance_norm(y, weight=m.table[0], bias=m.table[1]),
    "scaled attention": lambda m, y: maps(F.scaled_dot_product_attention(*[tokens(y)] * 3, scale=0.3)),
    "attention of its own scale": lambda m, y: maps(F.scaled_dot_product_attention(*[tokens(y)] * 3)),
    "causal attention": lambda m, y: maps(F.scaled_dot_product_attention(*[tokens(y)] * 3, is_causal=True)),
    "keys with a bias": lambda m, y: maps(F.scaled_dot_product_attention(tokens(y), tokens(y) + 1, tokens(y))),
    "grouped queries": lambda m, y: maps(
        F.scaled_dot_product_attention(tokens(y)[:, None], *[tokens(y)[:, None]] * 2, enable_gqa=True)[:, 0]
    ),
    "distances": lambda m, y: y + torch.cdist(tokens(y), tokens(y)).mean(),
    "bilinear": lambda m, y: F.bilinear(y.movedim(1, -1), y.movedim(1, -1), m.cube).movedim(-1, 1),
    "loss": lambda m, y: y + F.mse_loss(y, y * 2),
    "huber loss": lambda m, y: y + F.huber_loss(y, y * 2, reduction="none"),
    "renormalised": lambda m, y: torch.renorm(y, 2, 1, 0.5),
    "covariance": lambda m, y: y + torch.cov(y.transpose(0, 1).flatten(1)).sum(),
    "trace": lambda m, y: y + torch.einsum("bchw,dchw->bd", y, y).diagonal().sum(),
    "multi-head": lambda m, y: maps(m.heads(*[tokens(y)] * 3)[0]),
    "encoder": lambda m, y: maps(m.encoder(tokens(y))),
    "decoder": lambda m, y: maps(m.decoder(tokens(y), tokens(y))),
}


def inside(function):
    model = Net(lambda m, x: m.out(function(m, m.a(x))), a=conv(3, 8, 3), out=conv(8, 2))
    model.table, model.cube = nn.Parameter(torch.rand(3, 8)), nn.Parameter(torch.rand(8, 8, 8))
    model.heads = nn.MultiheadAttention(8, 2, batch_first=True)
    model.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model.decoder = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    return model


@pytest.mark.parametrize("name", INSIDE)
def test_functions_that_read_sizes_inside(name):
    graph, small = removed_at_half(inside(INSIDE[name]))
    assert small.a.out_channels == 4 or next(f.reason for f in graph.frozen if f.layer == "a")


@pytest.mark.parametrize(
    "name", ["one group", "as many groups as channels", "pairs", "instance norm", "scaled attention"]
)
def test_some_of_them_lose_channels(name):
    follows = {"one group": 8, "scaled attention": 4}.get(name, 4)
    assert removed_at_half(inside(INSIDE[name]))[1].a.out_channels == follows


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("rank", [3, 4])
def test_both_paths_of_attention(backend, rank):
    def forward(m, x):
        q, k, v = (t[:, None] if rank == 4 else t for t in (m.q(tokens(x)), m.k(tokens(x)), m.v(tokens(x))))
        with sdpa_kernel([backend, SDPBackend.MATH]):
            t = F.scaled_dot_product_attention(q, k, v)
        return m.out(t.flatten(0, -3) if rank == 4 else t)

    layers = {name: nn.Linear(3, 8) for name in "qkv"}
    graph, small = removed_at_half(Net(forward, **layers, out=nn.Linear(8, 2)))
    assert small.q.out_features == 8 and small.v.out_features == 4
    assert any("attention scales" in f.reason for f in graph.frozen)


def norm_of(*dims):
    return lambda w: w / (w.square().sum(dims, keepdim=True) + 1e-3).sqrt()


WEIGHTS = {
    "layer norm": lambda w: F.layer_norm(w, w.shape[1:]),
    "instance norm": lambda w: F.instance_norm(w.flatten(2)).view_as(w),
    "group norm": lambda w: F.group_norm(w, 1),
    "batch norm over inputs": lambda w: F.batch_norm(w.flatten(2), None, None, training=True).view_as(w),
    "variance and mean": lambda w: (
        (w - torch.var_mean(w, (1, 2, 3), keepdim=True)[1])
        * torch.rsqrt(torch.var_mean(w, (1, 2, 3), keepdim=True, unbiased=False)[0] + 1e-3)
    ),
    "demodulated": norm_of(1, 2, 3),
    "unit inputs": norm_of(0, 2, 3),
    "unit kernels": norm_of(2, 3),
    "softmax over inputs": lambda w: w.softmax(1),
    "quantised": lambda w: (w / w.abs().max() * 127).round(),
    "quantised by filter": lambda w: (w / (w.abs().amax((1, 2, 3), keepdim=True) + 1e-3)).round(),
    "binary": lambda w: w.sign() * w.abs().mean((1, 2, 3), keepdim=True),
    "binary by kernel": lambda w: w.sign() * w.abs().mean((2, 3), keepdim=True),
    "centred kernels": lambda w: w - w.mean((2, 3), keepdim=True),
    "orthogonal": lambda w: torch.linalg.qr(w.flatten(1).mT).Q.mT.reshape_as(w),
    "with an identity": lambda w: w + torch.eye(8, dtype=w.dtype)[:, :, None, None],
    "symmetric": lambda w: w + w.transpose(0, 1),
    "scaled by its norm": lambda w: w * w.norm(),
    "scaled by its spread": lambda w: w * w.std(),
    "clipped": lambda w: w.clamp(-w.abs().median(), w.abs().median()),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_more_statistics_of_weights(name):
    def forward(m, x):
        return m.out(F.conv2d(m.a(x), WEIGHTS[name](m.b.weight), m.b.bias, padding=1).relu())

    graph, small = removed_at_half(Net(forward, a=conv(3, 8), b=conv(8, 8, 3), out=conv(8, 2)))
    reasons = {f.layer: f.reason for f in graph.frozen}
    assert small.a.out_channels == 4 or reasons["a"]
    assert small.b.out_channels == 4 or reasons["b"]


@pytest.mark.parametrize(
    "name", ["unit inputs", "unit kernels", "demodulated", "binary by kernel", "scaled by its norm"]
)
def test_some_statistics_lose_channels(name):
    def forward(m, x):
        return m.out(F.conv2d(m.a(x), WEIGHTS[name](m.b.weight), m.b.bias, padding=1).relu())

    graph, _ = removed_at_half(Net(forward, a=conv(3, 8), b=conv(8, 8, 3), out=conv(8, 2)))
    assert {layer for g in graph.groups for layer in g.layers} == {"a", "b"}
