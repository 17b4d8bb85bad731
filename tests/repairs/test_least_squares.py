"""Least squares: exact where the removed channels are combinations of kept ones, the identity where nothing went."""

import copy

import pytest
import torch
from copied_nets import Net, copied, lively
from torch import nn

import dcodp
from dcodp.importance.criteria.second_order import lost_by_consumer
from dcodp.repairs.methods.least_squares import best_fit

HALF = 4


def conv(inputs, filters, size=3, **options):
    return nn.Conv2d(inputs, filters, size, padding=size // 2, **options)


def plain():
    return Net(lambda m, x: m.b(m.a(x).relu()), a=copied(conv(3, 8), HALF), b=conv(8, 5))


def behind_a_norm():
    norm = lively(nn.BatchNorm2d(8))
    a = copied(conv(3, 8, bias=False), HALF, norm)
    return Net(
        lambda m, x: m.out(m.b(m.norm(m.a(x)).relu())), a=a, norm=norm, b=conv(8, 5), out=lively(nn.BatchNorm2d(5))
    )


def residual():
    def forward(m, x):
        y = m.a(x).relu()
        return m.c(y + m.b(y).relu())

    return Net(forward, a=copied(conv(3, 8), HALF), b=copied(conv(8, 8), HALF), c=conv(8, 2, 1))


def concatenation_that_repeats():
    def forward(m, x):
        y = m.a(x).relu()
        return m.b(torch.cat([y, nn.functional.max_pool2d(y, 3, 1, 1), m.c(x)], 1))

    return Net(forward, a=copied(conv(3, 8), HALF), c=conv(3, 3), b=conv(19, 4, 1))


def shared_head():
    def forward(m, x):
        y = m.a(x).relu()
        small = nn.functional.avg_pool2d(y, 2)
        return torch.cat([m.head(y).flatten(1), m.head(small).flatten(1)], 1)

    return Net(forward, a=copied(conv(3, 8), HALF), head=conv(8, 4))


def linear_layers():
    def forward(m, x):
        return m.c(m.b(x.mean((2, 3))).relu())

    return Net(forward, b=copied(nn.Linear(3, 8), HALF), c=nn.Linear(8, 3))


def flattened():
    return Net(lambda m, x: m.c(m.a(x).relu().flatten(1)), a=copied(conv(3, 8), HALF), c=nn.Linear(8 * 144, 3))


def transposed():
    b = nn.ConvTranspose2d(8, 4, 2, stride=2)
    return Net(lambda m, x: m.b(m.a(x).relu()), a=copied(conv(3, 8), HALF), b=b)


CONSTRUCTIONS = (
    plain, behind_a_norm, residual, concatenation_that_repeats, shared_head, linear_layers, flattened, transposed,
)  # fmt: skip


def pruned(make):
    """(dense, pruned, plan, batches); the copies go."""
    torch.manual_seed(3)
    dense = make().double().eval()
    batches = [torch.rand(4, 3, 12, 12, dtype=torch.float64) for _ in range(8)]
    graph = dcodp.trace(dense, batches[0])
    scores = {g.name: torch.tensor([1.0] * HALF + [0.0] * HALF) for g in graph.groups if g.channels == 2 * HALF}
    plan = dcodp.select(graph, scores, ratio=0.5)
    return dense, dcodp.prune(dense, plan), plan, batches


@pytest.mark.parametrize("make", CONSTRUCTIONS)
def test_copies_are_made_up_for(make):
    dense, small, plan, batches = pruned(make)
    before = copy.deepcopy(small.state_dict())
    better = dcodp.repair(dense, small, plan, batches, how="least_squares")
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    assert plan.channel_ratio > 0 and (small(x) - dense(x)).abs().max() > 1e-3
    assert (better(x) - dense(x)).abs().max() < 1e-8 * dense(x).abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items()), "a new network"


@pytest.mark.parametrize("how", ["least_squares", "batchnorm", "rescale", "none"])
def test_with_nothing_removed_it_is_the_identity(how):
    dense, _, _, batches = pruned(behind_a_norm)
    graph = dcodp.trace(dense, batches[0])
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.0)
    better = dcodp.repair(dense, dcodp.prune(dense, plan), plan, batches, how=how)
    for name, tensor in dense.state_dict().items():
        torch.testing.assert_close(better.state_dict()[name], tensor, rtol=1e-12, atol=1e-12)


def test_a_constant_goes_where_there_is_room_for_it():
    """A channel that is always on is made up for by a bias, or by the mean of the norm behind."""
    for bias in (True, False):
        norm = lively(nn.BatchNorm2d(4))
        dense = Net(
            lambda m, x: m.norm(m.b(m.a(x).relu())), a=conv(3, 8, 1), b=conv(8, 4, 1, bias=bias), norm=norm
        ).double()
        with torch.no_grad():
            dense.a.weight[5:] = 0
            dense.a.bias[5:] = torch.tensor([1.0, 2.0, 3.0])
        dense.eval()
        batches = [torch.rand(4, 3, 6, 6, dtype=torch.float64) for _ in range(4)]
        graph = dcodp.trace(dense, batches[0])
        plan = dcodp.select(graph, {"a": torch.tensor([1.0] * 5 + [0.0] * 3)}, ratio=3 / 8)
        small = dcodp.prune(dense, plan)
        better = dcodp.repair(dense, small, plan, batches)
        assert (small(batches[0]) - dense(batches[0])).abs().max() > 1e-2
        torch.testing.assert_close(better(batches[0]), dense(batches[0]), rtol=1e-9, atol=1e-9)


def test_what_does_not_hold_on_other_images_is_not_taken():
    """As many unknowns as samples: the fit is perfect, and on held-out samples worse than nothing."""
    torch.manual_seed(0)
    samples, others = torch.randn(7, 7, dtype=torch.float64), torch.randn(500, 7, dtype=torch.float64)
    moments = [torch.cat([s, s.new_ones(len(s), 1)], 1) for s in (samples, others)]
    fit, test = (m.T @ m / len(m) for m in moments)
    kept, removed, lost = torch.arange(5), torch.arange(5, 7), torch.ones(2, 3, 1, dtype=torch.float64)
    found = best_fit(fit, test, kept, removed, lost, constant=True)
    nothing = float((lost.flatten(1) @ lost.flatten(1).T * test[removed][:, removed]).sum())
    if found is not None:  # then it is better than nothing, by the largest ridges
        error = test[removed][:, removed] - 2 * found.T @ test[[*range(5), 7]][:, removed]
        assert float(error.sum()) < nothing
    assert best_fit(fit, torch.eye(8, dtype=torch.float64), kept, removed, lost, constant=False) is None


def test_refusals():
    dense, small, plan, batches = pruned(plain)
    with pytest.raises(dcodp.InputError, match="repair=glue is not known; use one of batchnorm, least_squares, "):
        dcodp.repair(dense, small, plan, batches, how="glue")
    with pytest.raises(dcodp.InputError, match="give at least one"):
        dcodp.repair(dense, small, plan, [])


def test_second_order_scores_are_what_is_left_after_the_best_fit():
    """1 / [G⁻¹]_ii is the error of input i when all others explain it, times the weights that read it."""
    torch.manual_seed(0)
    x = torch.randn(4000, 5, dtype=torch.float64) @ (torch.eye(5) + torch.randn(5, 5) / 4).double() + 1
    extended = torch.cat([x, x.new_ones(len(x), 1)], 1)
    weight = torch.randn(5, 7, dtype=torch.float64)
    found = lost_by_consumer(weight, (extended.T @ extended / len(x))[None])
    for i in range(5):
        others = extended[:, [j for j in range(6) if j != i]]
        left = x[:, i] - others @ torch.linalg.lstsq(others, x[:, i]).solution
        wanted = left.square().mean() * weight[i].square().sum()
        assert found[i] == pytest.approx(float(wanted), rel=0.1)  # the ridge lets a little more be left
