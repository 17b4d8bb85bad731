"""Scores from weights, by hand."""

import math

import pytest
import torch

from dcodp.errors import InputError
from dcodp.importance import batchnorm_scale, fpgm, l1, l2, lamp, random, taylor

WEIGHT = torch.tensor([[3.0, -4.0], [0.0, 0.0], [6.0, 8.0], [0.0, -5.0]])


def expect(score: torch.Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(score, torch.tensor(wanted, dtype=torch.float64))


def test_norms():
    expect(l1(WEIGHT), [7, 0, 14, 5])
    expect(l2(WEIGHT), [5, 0, 10, 5])


def test_fpgm():
    a, b, c = 5.0, math.sqrt(9 + 144), math.sqrt(10)  # 0-1, 0-2, 0-3
    d, e, f = 10.0, 5.0, math.sqrt(36 + 169)  # 1-2, 1-3, 2-3
    expect(fpgm(WEIGHT), [a + b + c, a + d + e, b + d + f, c + e + f])


def test_fpgm_finds_the_median_not_the_smallest():
    assert int(fpgm(torch.tensor([[1.0], [2.0], [2.1], [9.0]])).argmin()) in (1, 2)


def test_lamp():
    # squared norms 25, 0, 100, 25: equal channels count each other
    expect(lamp(WEIGHT), [25 / 150, 0, 1, 25 / 150])
    expect(lamp(torch.zeros(3, 2)), [0, 0, 0])


def test_lamp_does_not_depend_on_the_layers_scale():
    weight = torch.randn(9, 5)
    torch.testing.assert_close(lamp(1000 * weight), lamp(weight))


def test_batchnorm_scale():
    expect(batchnorm_scale(torch.tensor([-2.0, 0.5, 0.0])), [2, 0.5, 0])


def test_taylor():
    grad = torch.tensor([[1.0, 1.0], [7.0, 7.0], [0.5, 0.0], [1.0, 2.0]])
    expect(taylor(WEIGHT, grad), [1, 0, 9, 100])  # the parts of a channel may cancel


def test_taylor_is_the_first_order_change_of_the_loss():
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(6, dtype=torch.float64)
    loss = (weight @ inputs).sum()  # linear: first order is exact
    (grad,) = torch.autograd.grad(loss, weight)
    removed = torch.stack([loss - (weight * (torch.arange(4) != i)[:, None] @ inputs).sum() for i in range(4)])
    torch.testing.assert_close(taylor(weight, grad), removed.detach().square())


def test_random_follows_its_generator():
    first, again = (random(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (5,) and first.dtype == torch.float64
    assert not torch.equal(first, random(5, torch.Generator().manual_seed(4)))


@pytest.mark.parametrize("score", [l1, l2, fpgm, lamp])
def test_refusals(score):
    with pytest.raises(InputError, match="fan-in"):
        score(torch.rand(4, 3, 3, 3))
    with pytest.raises(InputError, match="NaN"):
        score(torch.full((2, 2), math.nan))


def test_pairs_are_checked():
    with pytest.raises(InputError, match="differ"):
        taylor(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(InputError, match="batch norm"):
        batchnorm_scale(torch.rand(2, 3))
