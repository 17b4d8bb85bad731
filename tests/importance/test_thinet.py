"""ThiNet's greedy order and its scales, against exhaustive evaluation of the objective."""

import math

import pytest
import torch

from dcodp.errors import InputError
from dcodp.importance import (
    contribution_gram,
    thinet_order,
    thinet_order_from_gram,
    thinet_scales_from_gram,
)


def definition(contributions: torch.Tensor) -> list[int]:
    """The objective evaluated from the samples for every candidate of every step."""
    removed: list[int] = []
    while len(removed) < contributions.shape[1]:
        left = [c for c in range(contributions.shape[1]) if c not in removed]
        removed.append(min(left, key=lambda c: contributions[:, [*removed, c]].sum(1).square().sum().item()))
    return removed


def test_order_agrees_with_the_definition():
    contributions = torch.randn(200, 14, dtype=torch.float64) * torch.rand(14) + 0.3 * torch.randn(200, 1)
    assert thinet_order(contributions).tolist() == definition(contributions)


def test_order_by_hand():
    # 0 is the weakest alone; 2 undoes most of it, so 2 follows although 1 is weaker than 2.
    contributions = torch.tensor([[1.0, 0.0, -1.1], [0.0, 1.05, 0.0]])
    assert thinet_order(contributions).tolist() == [0, 2, 1]


def test_gram_matrices_add_up_over_batches():
    contributions = torch.randn(60, 8)
    parts = sum(contribution_gram(part) for part in contributions.split(25))
    torch.testing.assert_close(parts, contribution_gram(contributions))
    assert torch.equal(thinet_order_from_gram(parts), thinet_order(contributions))


def test_scales_are_the_least_squares_solution():
    contributions, kept = torch.randn(50, 6, dtype=torch.float64), torch.tensor([5, 0, 2])
    wanted = torch.linalg.lstsq(contributions[:, kept], contributions.sum(1)).solution
    torch.testing.assert_close(thinet_scales_from_gram(contribution_gram(contributions), kept), wanted)


def test_scales_keep_1_where_nothing_is_known():
    contributions = torch.randn(50, 4, dtype=torch.float64)
    contributions[:, 2] = 0
    contributions[:, 3] = contributions[:, 1]
    # 3 repeats 1, so 1 takes it over fully next to the dead channel 2.
    scales = thinet_scales_from_gram(contribution_gram(contributions), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(scales, torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64))
    everything = thinet_scales_from_gram(contribution_gram(contributions), torch.arange(4))
    torch.testing.assert_close(everything, torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("contributions", [torch.full((3, 2), math.nan), torch.rand(3), torch.ones(3, 2).long()])
def test_refusals(contributions):
    with pytest.raises(InputError, match="contributions"):
        thinet_order(contributions)
