"""Channel pruning by LASSO (He, Zhang and Sun, ICCV 2017), on second moments.

X [N, C] are the contributions of the input channels to samples y [N] of the next layer's outputs (see thinet.py). The
channels kept are those with β ≠ 0 in argmin ½‖y − Xβ‖² + λ‖β‖₁, λ such that K remain; the next layer is then refitted
by least squares (`thinet_scales_from_gram`, or the compensation). G = Xᵀ X and c = Xᵀ y say all of it. There is no
intercept: y holds what the channels contribute, without the next layer's bias.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dcodp.calibration.inner_products import check_gram
from dcodp.errors import InputError

NEAR_ZERO = 1e-9  # relative: a channel that follows an active one this closely (a duplicate) does not join


def lasso_scores(gram: Tensor, correlation: Tensor) -> Tensor:
    """One score per channel [C] float64: the λ at which it last joined the path; 0 for one that never stays."""
    scores = torch.zeros_like(correlation)
    active: list[int] = []
    for penalty, now, _ in lasso_path(gram, correlation):
        scores[[channel for channel in active if channel not in now]] = 0
        scores[[channel for channel in now if channel not in active]] = penalty
        active = now
    return scores


def lasso_path(gram: Tensor, correlation: Tensor) -> Iterator[tuple[float, list[int], Tensor]]:
    """Corners of the path from λ_max down (Osborne et al. 2000, the LASSO variant of LARS): λ, active channels in
    order of joining, and β [C] at that λ; the last corner is λ = 0 or the smallest that rounding can tell from it.

    Between corners β changes linearly, such that the correlations of the active channels with the residual shrink
    together. The next corner is where another channel's correlation catches up, or an active β reaches 0.
    """
    check_gram(gram)
    if correlation.shape != gram.shape[:1] or correlation.dtype != torch.float64:
        raise InputError(f"correlation is [{len(gram)}] float64, not {list(correlation.shape)} {correlation.dtype}")
    residual, beta = correlation.clone(), torch.zeros_like(correlation)
    start = penalty = float(residual.abs().max())
    active = [int(residual.abs().argmax())] if penalty > 0 else []
    left: list[int] = []  # a channel that leaves stands where it would join
    while active:
        yield penalty, list(active), beta.clone()
        direction = torch.linalg.solve(gram[active][:, active], residual[active].sign())
        speed = gram[:, active] @ direction
        joining, join = _next_to_join(residual, speed, penalty, active + left)
        leaving, leave = _next_to_leave(beta[active], direction)
        step = min(joining, leaving, penalty)
        beta[active] += step * direction
        residual -= step * speed
        penalty -= step
        if penalty <= NEAR_ZERO * start:
            yield penalty, list(active), beta.clone()
            return
        left = [active.pop(leave)] if leaving < joining else []
        beta[left] = 0
        active += [] if left else [join]


def _next_to_join(residual: Tensor, speed: Tensor, penalty: float, barred: list[int]) -> tuple[float, int]:
    """How far λ falls until the |correlation| of a channel that is not barred equals it, and that channel; inf where
    none does. Several that are level with λ join one after the other, without a step between them."""
    ahead = torch.stack([penalty - residual, penalty + residual])  # [2, C]: for positive, for negative correlation
    closing = torch.stack([1 - speed, 1 + speed])
    steps = torch.where(closing > NEAR_ZERO, ahead.clamp(min=0) / closing, torch.inf)
    steps[:, barred] = torch.inf
    step, channel = steps.amin(0).min(0)
    return float(step), int(channel)


def _next_to_leave(beta: Tensor, direction: Tensor) -> tuple[float, int]:
    """How far λ falls until an active β reaches 0, and its position among the active; inf where none does."""
    steps = torch.where(beta * direction < 0, -beta / direction, torch.inf)
    step, position = steps.min(0)
    return float(step), int(position)
