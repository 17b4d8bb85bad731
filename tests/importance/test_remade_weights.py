"""Layers whose weight is put together on the way to the convolution have scores like all others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import dcodp
from dcodp.importance.criteria import criterion, names
from dcodp.testing import assert_equivalent, enliven

IMAGE = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Remade(nn.Module):
    """A convolution with `weight(module)` in place of its weight."""

    def __init__(self, weight, c=8, **more):
        super().__init__()
        self.conv, self._weight = nn.Conv2d(c, c, 3, padding=1), weight
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x):
        return F.conv2d(x, self._weight(self), self.conv.bias, padding=1)


def written(m):
    w = m.conv.weight
    out = torch.zeros(*w.shape[:2], 9)
    out[:, :, :] = w.flatten(2)
    out[:, :, 4] = out[:, :, 4] - w.sum((2, 3))
    return out.view_as(w)


def standardised(m):
    return F.batch_norm(m.conv.weight.flatten(1)[None], None, None, training=True).view_as(m.conv.weight)


def masked(m):
    return m.conv.weight * torch.eye(3)[None, None]


def branches(m):
    return m.conv.weight + F.pad(m.point.weight, (1, 1, 1, 1))


def padded(m):
    return torch.cat([torch.zeros_like(m.conv.weight[:, :, :1]), m.conv.weight[:, :, 1:]], 2)


def low_rank(m):
    return m.conv.weight + (m.up @ m.down).view_as(m.conv.weight)


def flipped(m):
    return m.conv.weight.flip(2, 3) + m.conv.weight.transpose(2, 3)


KINDS = {
    "written into zeros": lambda: Remade(written),
    "standardised": lambda: Remade(standardised),
    "masked": lambda: Remade(masked),
    "two branches": lambda: Remade(branches, point=nn.Conv2d(8, 8, 1)),
    "concatenated": lambda: Remade(padded),
    "low rank": lambda: Remade(low_rank, up=nn.Parameter(torch.rand(8, 2)), down=nn.Parameter(torch.rand(2, 72))),
    "symmetric": lambda: Remade(flipped),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3, padding=1)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_has_scores(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), KINDS[kind](), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    graph = dcodp.trace(model, (IMAGE,))
    scores = dcodp.score(model, graph, ["dcodp", "hrank", "chip", "dcodp_greedy"], [IMAGE])
    expected = [g.name for g in graph.groups if g.layers]  # not the rank of a product of weights
    assert all(list(found) == expected for found in scores.values())
    assert any(layer.startswith("2") for g in graph.groups for layer in g.layers) or any(
        f.layer.startswith("2") for f in graph.frozen
    )


class Matrix(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.kernel, self._weight = nn.Parameter(torch.rand(8, 8)), weight

    def forward(self, x):
        return self._weight(self, x.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    "weight",
    [
        lambda m, x: F.linear(x, m.kernel * 2 + 1),
        lambda m, x: x @ m.kernel,
        lambda m, x: F.linear(x, m.kernel.tril().triu()),
        lambda m, x: x @ (m.kernel @ m.kernel),
        lambda m, x: torch.einsum("bhwc,cd->bhwd", x, m.kernel.exp()),
    ],
)
def test_matrices_by_any_name(weight):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), Matrix(weight), nn.ReLU(), nn.Conv2d(8, 2, 1)).double().eval()
    x = IMAGE.double()
    graph = dcodp.trace(enliven(model, (x,)), (x,))
    scores = dcodp.score(model, graph, "dcodp", [x])
    assert list(scores) == [g.name for g in graph.groups] and "2" in {n for g in graph.groups for n in g.layers} | {
        f.layer for f in graph.frozen
    }
    plan = dcodp.select(graph, scores)
    assert_equivalent(model, dcodp.prune(model, plan), plan, (x,))


def test_maps_are_those_that_the_remade_weight_makes():
    """A layer whose standardised weight happens to be its weight scores as the plain layer does."""
    plain = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    remade = nn.Sequential(plain[0], Remade(lambda m: m.conv.weight + torch.zeros(1)), plain[2], plain[3]).eval()
    remade[1].conv = plain[1]
    for name in names():
        if criterion(name).sees == "gradients" or name in ("random", "slimming"):
            continue
        one, other = (
            [*dcodp.score(m, dcodp.trace(m, (IMAGE,)), name, [IMAGE], locations=64).values()] for m in (plain, remade)
        )
        assert len(one) == len(other) == 2 and all(torch.allclose(a, b) for a, b in zip(one, other, strict=True)), name


def test_repairs_leave_remade_weights_alone():
    from dcodp.calibration import Evidence, forward_of, gather
    from dcodp.calibration.contributions import Contributions
    from dcodp.calibration.moments import InputMoments

    model = nn.Sequential(nn.Conv2d(3, 8, 1), Remade(masked), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    evidence = Evidence(model, dcodp.trace(model, (IMAGE,)), (Contributions(), InputMoments()))
    gather(evidence, [IMAGE], forward_of(model))
    grams = Contributions().grams(evidence.sums[Contributions()], evidence.subject)
    assert list(grams) == ["1.conv → 3.weight"]
    assert InputMoments().of(evidence.sums[InputMoments()], "1.conv.weight") is None


def test_groups_without_scores_are_named_by_explain():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)).eval()
    graph = dcodp.trace(model, (IMAGE,))
    told = graph.explain(dcodp.score(model, graph, "slimming"))
    assert told.endswith("no scores, so that all channels stay: 2\n") and "no scores" not in graph.explain()
