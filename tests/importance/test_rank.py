"""HRank's average rank and the rank form of the coupling."""

import math

import pytest
import torch

from dcodp.errors import InputError
from dcodp.importance import average_rank, rank_coupling


def definition(maps: torch.Tensor) -> torch.Tensor:
    """Eq. 7 as it stands."""
    rows = maps.double().flatten(2)
    without = [rows * (torch.arange(rows.shape[1]) != i)[:, None] for i in range(rows.shape[1])]
    ranks = torch.stack([torch.linalg.matrix_rank(each) for each in without], dim=1)
    return (torch.linalg.matrix_rank(rows)[:, None] - ranks).double()


def test_average_rank_by_hand():
    maps = torch.zeros(2, 3, 4, 4)
    maps[0, 0] = torch.eye(4)  # rank 4
    maps[1, 0] = 1.0  # rank 1
    maps[0, 1, 2, 3] = 5.0  # rank 1, and 0 in the other image
    torch.testing.assert_close(average_rank(maps), torch.tensor([2.5, 0.5, 0.0], dtype=torch.float64))


def test_average_rank_takes_the_tolerance_of_the_dtype():
    maps = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64)).view(1, 1, 2, 2)
    assert average_rank(maps).item() == 2 and average_rank(maps.float()).item() == 1


def test_average_rank_of_half_precision():
    assert average_rank(torch.eye(5, dtype=torch.float16).expand(1, 2, 5, 5)).tolist() == [5, 5]


def test_rank_coupling_by_hand():
    rows = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1e-5, 0], [0, 0, 0, 0]])
    # The first three depend on each other, the weak fourth stands alone, the fifth is dead.
    assert rank_coupling(rows.view(1, 5, 2, 2)).tolist() == [[0, 0, 0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_coupling_agrees_with_the_definition(dtype):
    maps = torch.randn(3, 10, 6, 6, dtype=torch.float64)
    maps[:, 4] = 0.5 * maps[:, 1] - maps[:, 2]
    maps[:, 7] = 0
    maps[2, 9] = 1e4 * maps[2, 8]
    wanted = definition(maps)
    assert wanted.sum(1).tolist() == [6, 6, 4]
    assert torch.equal(rank_coupling(maps.to(dtype)), wanted)


def test_rank_coupling_with_fewer_positions_than_channels():
    maps = torch.zeros(1, 6, 2, 2)
    maps[0, 0, 0, 0] = 1  # alone in its position
    maps[0, 1:, 0, 1] = torch.randn(5)
    maps[0, 1:, 1, 0] = torch.randn(5)
    assert rank_coupling(maps).tolist() == [[1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("score", [average_rank, rank_coupling])
def test_refusals(score):
    with pytest.raises(InputError, match="NaN"):
        score(torch.full((1, 2, 3, 3), math.nan))
    with pytest.raises(InputError, match=r"\[B, C, H, W\]"):
        score(torch.rand(2, 3, 3))
