"""The LASSO path: optimality conditions at every corner, and the selection it leads to."""

import pytest
import torch
from torch import Tensor

from dcodp.errors import InputError
from dcodp.importance import contribution_gram, lasso_path, lasso_scores, thinet_scales_from_gram


def lasso_select(gram: Tensor, correlation: Tensor, keep: int) -> Tensor:
    """Indices of the K channels kept: gram [C, C], correlation c [C], both float64 → [K] int64, ascending.

    The first solution with K channels, coming from large λ. Where fewer than K can be told apart (duplicates, zeros),
    the strongest of the others, by G_ii, fill up.
    """
    if not 0 <= keep <= len(gram):
        raise InputError(f"cannot keep {keep} of {len(gram)} channels; use 0 ≤ keep ≤ {len(gram)}")
    active: list[int] = []
    for _, active, _ in lasso_path(gram, correlation):
        if len(active) >= keep:
            break
    strongest = gram.diagonal().sort(descending=True, stable=True).indices.tolist()
    filled = active[:keep] + [channel for channel in strongest if channel not in active]
    return torch.tensor(sorted(filled[:keep]), dtype=torch.int64, device=gram.device)


def problem(channels: int, samples: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    mixed = torch.randn(samples, channels, dtype=torch.float64) @ torch.randn(channels, channels, dtype=torch.float64)
    squares = contribution_gram(mixed)
    return squares, squares.sum(1)  # y is the sum of the contributions


def test_every_corner_is_optimal():
    leavers = 0
    for _ in range(6):
        squares, correlation = problem(12)
        slack, before = 1e-8 * float(correlation.abs().max()), 0
        for penalty, active, beta in lasso_path(squares, correlation):
            gradient, nonzero = correlation - squares @ beta, beta != 0
            assert bool((gradient.abs() <= penalty + slack).all())
            torch.testing.assert_close(gradient[nonzero], penalty * beta[nonzero].sign(), rtol=0, atol=slack)
            assert set(nonzero.nonzero().flatten().tolist()) <= set(active)
            leavers, before = leavers + (len(active) < before), len(active)
    assert leavers, "the examples have channels that leave the path"


def test_dependent_channels_end_the_path():
    contributions = torch.randn(200, 5, dtype=torch.float64) @ torch.randn(5, 12, dtype=torch.float64)
    squares = contribution_gram(contributions)
    assert max(len(active) for _, active, _ in lasso_path(squares, squares.sum(1))) == 5
    assert len(lasso_select(squares, squares.sum(1), keep=9)) == 9


def test_the_path_ends_in_least_squares():
    squares, correlation = problem(8)
    *_, (penalty, _, beta) = lasso_path(squares, correlation)
    assert penalty < 1e-8 * correlation.abs().max()
    torch.testing.assert_close(beta, torch.ones(8, dtype=torch.float64))  # y = X·1


def test_orthogonal_channels_are_kept_by_strength():
    squares = torch.diag(torch.tensor([4.0, 9.0, 1.0, 16.0], dtype=torch.float64))
    assert lasso_select(squares, squares.sum(1), keep=2).tolist() == [1, 3]
    torch.testing.assert_close(lasso_scores(squares, squares.sum(1)), squares.diagonal())


def test_a_duplicate_is_kept_only_to_fill_up():
    contributions = torch.randn(80, 5, dtype=torch.float64)
    contributions[:, 3] = contributions[:, 0]
    contributions[:, 4] = 0
    squares = contribution_gram(contributions)
    chosen = lasso_select(squares, squares.sum(1), keep=3).tolist()
    assert chosen in ([0, 1, 2], [1, 2, 3])
    scales = thinet_scales_from_gram(squares, torch.tensor(chosen))
    wanted = [2.0 if channel in (0, 3) else 1.0 for channel in chosen]
    torch.testing.assert_close(scales, torch.tensor(wanted, dtype=torch.float64))
    assert lasso_select(squares, squares.sum(1), keep=4).tolist() == [0, 1, 2, 3]
    assert lasso_select(squares, squares.sum(1), keep=5).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("keep", range(13))
def test_exactly_keep_channels(keep):
    chosen = lasso_select(*problem(12), keep=keep).tolist()
    assert len(set(chosen)) == keep and chosen == sorted(chosen)


def test_nothing_to_explain():
    squares = torch.zeros(3, 3, dtype=torch.float64)
    assert lasso_select(squares, squares.sum(1), keep=2).tolist() == [0, 1]
    assert lasso_scores(squares, squares.sum(1)).tolist() == [0, 0, 0]


def test_refusals():
    squares, correlation = problem(4)
    with pytest.raises(InputError, match="cannot keep 5"):
        lasso_select(squares, correlation, keep=5)
    with pytest.raises(InputError, match="correlation"):
        lasso_select(squares, correlation[:3], keep=2)


def test_channels_that_are_level_join_together():
    squares = torch.eye(4, dtype=torch.float64)
    assert lasso_scores(squares, squares.sum(1)).tolist() == [1, 1, 1, 1]
    *_, (_, _, beta) = lasso_path(squares, squares.sum(1))
    torch.testing.assert_close(beta, torch.ones(4, dtype=torch.float64))


def test_alike_channels_score_alike_along_an_optimal_path():
    squares = torch.tensor([[3.0, 1.0, 0.5], [1.0, 3.0, 0.5], [0.5, 0.5, 6.0]], dtype=torch.float64)
    correlation = squares.sum(1)
    scores = lasso_scores(squares, correlation)
    assert scores[0] == pytest.approx(float(scores[1])) and scores.min() > 0
    for penalty, _, beta in lasso_path(squares, correlation):
        gradient = correlation - squares @ beta
        assert float(gradient.abs().max()) <= penalty + 1e-9
