"""Greedy removal: the same order as scoring anew after every removal, and what it is for."""

import math

import pytest
import torch
from definitions import nuclear_coupling_from_gram

from dcodp.errors import InputError
from dcodp.importance import gram, greedy_removal_order


def definition(squares: torch.Tensor) -> list[int]:
    """Scores the remaining channels from nothing after each removal; ties go to the lower index."""
    left, order = list(range(len(squares))), []
    while left:
        scores = nuclear_coupling_from_gram(squares[left][:, left])
        order.append(left.pop(int((scores <= scores.min() * (1 + 1e-9)).nonzero()[0])))
    return order


def averaged(rows: torch.Tensor) -> torch.Tensor:
    return rows @ rows.T / rows.shape[1]


def samples(channels: int) -> torch.Tensor:
    return torch.randn(channels, 300, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 2, 33, 70])
def test_order_agrees_with_the_definition(channels):
    squares = averaged(samples(channels).relu())
    assert greedy_removal_order(squares).tolist() == definition(squares)


def test_graded_channels():
    squares = averaged(samples(40) * torch.logspace(0, -5, 40, dtype=torch.float64)[:, None])
    assert greedy_removal_order(squares).tolist() == definition(squares)


def test_dependent_channels():
    squares = averaged(samples(40)[:, :12] @ samples(12))
    assert greedy_removal_order(squares).tolist() == definition(squares)


def test_duplicates_keep_one_where_one_shot_loses_all():
    rows = samples(20)
    copies = [2, 5, 11, 17]
    rows[copies] = 0.3 * rows[2]  # weak, and four times the same
    squares = averaged(rows)
    one_shot = nuclear_coupling_from_gram(squares).argsort()[:4].tolist()
    assert set(one_shot) == set(copies), "one-shot removes the channel with all its copies"
    greedy = greedy_removal_order(squares, remove=3).tolist()
    assert set(greedy) < set(copies), "greedy removes three copies"
    left = [c for c in range(20) if c not in greedy]
    survivor = next(c for c in copies if c not in greedy)
    last = nuclear_coupling_from_gram(squares[left][:, left])[left.index(survivor)]
    assert last > 2 * nuclear_coupling_from_gram(squares)[survivor], "and the last copy is worth more than before"


def test_near_duplicates():
    rows = samples(36)
    rows[1] = rows[0] + 1e-6 * rows[1]
    rows[3] = rows[2] + 1e-9 * rows[3]
    squares = averaged(rows)
    greedy, wanted = greedy_removal_order(squares).tolist(), definition(squares)
    # Of two channels equal to 1e-9 either may go first.
    assert [2 if c == 3 else c for c in greedy] == [2 if c == 3 else c for c in wanted]


def test_dead_channels_go_first():
    rows = samples(9)
    rows[[4, 7]] = 0
    assert set(greedy_removal_order(averaged(rows), remove=2).tolist()) == {4, 7}
    assert greedy_removal_order(torch.zeros(3, 3, dtype=torch.float64)).tolist() == [0, 1, 2]


def test_stopping_early_gives_the_beginning():
    squares = gram(torch.randn(1, 50, 10, 10))[0]
    whole = greedy_removal_order(squares)
    assert torch.equal(greedy_removal_order(squares, remove=35), whole[:35])
    assert greedy_removal_order(squares, remove=0).tolist() == []
    assert sorted(whole.tolist()) == list(range(50)) and whole.dtype == torch.int64


def test_progress_reaches_the_end():
    seen: list[int] = []
    greedy_removal_order(averaged(samples(50)), progress=seen.append)
    assert seen[-1] == 50 and seen == sorted(set(seen)) and len(seen) > 1


def test_refusals():
    with pytest.raises(InputError, match="cannot order 4 channels"):
        greedy_removal_order(torch.eye(3, dtype=torch.float64), remove=4)
    with pytest.raises(InputError, match="Gram matrix"):
        greedy_removal_order(torch.full((3, 3), math.nan, dtype=torch.float64))
