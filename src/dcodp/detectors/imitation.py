"""How far what one net says is from what another says: zero where they agree, and means over a whole shared batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dcodp.detectors.parallel import mean_over_processes
from dcodp.errors import InputError

LEAST_WEIGHT = 1e-6  # total that is divided by
LEAST_VARIANCE = 1e-4  # ε, added to a map's: one that hardly moves is no lesson


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Σ w v / Σ w over all places, the sum of the weights being that of all processes that share the batch."""
    return (weights * values).sum() / mean_over_processes(weights.sum(), LEAST_WEIGHT)


def plain_mean(values: Tensor) -> Tensor:
    return weighted_mean(values, torch.ones_like(values))


class _BinaryDivergence(torch.autograd.Function):
    """With the gradient σ(logits) − σ(taught) in one pass over memory where autograd takes several."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, taught: Tensor) -> Tensor:
        wanted = taught.sigmoid()
        ctx.save_for_backward(logits.sigmoid().sub_(wanted))
        return softplus(logits).sub_(softplus(taught)).sub_(wanted.mul_(logits - taught))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (error,) = ctx.saved_tensors
        return error * gradient, None


def binary_divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """Per entry KL(σ(taught) ‖ σ(logits)): the binary cross entropy towards the taught probability, less its entropy,
    which moves no weight and would hide how much is left to learn. Any shape, float32; its gradient is for `logits`."""
    return _BinaryDivergence.apply(logits.float(), taught.float())


def categorical_divergence(logits: Tensor, taught: Tensor, dim: int) -> Tensor:
    """KL(softmax(taught) ‖ softmax(logits)) along `dim`, which goes; float32."""
    wanted, found = taught.float().log_softmax(dim), logits.float().log_softmax(dim)
    return (wanted.exp() * (wanted - found)).sum(dim)


class _SquaredDistance(torch.autograd.Function):
    """‖found − taught‖², with a gradient for `found` alone: half of the passes over memory that autograd takes."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, taught: Tensor) -> Tensor:
        error = found - taught
        ctx.save_for_backward(error)
        return torch.linalg.vector_norm(error).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (error,) = ctx.saved_tensors
        return error * (2 * gradient), None


def unexplained(found: Tensor, taught: Tensor, channel: int) -> Tensor:
    """‖found − taught‖² / (Σ (taught − its channel's mean)² + n ε): 0 for a copy, about 1 for the means alone.

    Same shapes with n entries, `channel` the dimension of the channels; all channels share one denominator, so that
    those that hardly move weigh little, and so do all processes that share the batch. A scalar, float32.
    """
    found, taught = found.float(), taught.float()
    sums = taught.sum([d for d in range(taught.dim()) if d != channel % taught.dim()])
    squares = torch.linalg.vector_norm(taught).square()  # of all channels: what each of them adds is not asked for
    count, total = sums.new_tensor(taught.numel() / max(len(sums), 1)), len(sums)
    told = mean_over_processes(torch.cat([sums, torch.stack([squares, count])]))
    sums, squares, count = told[:total], told[total], told[total + 1]
    spread = (squares - sums.square().sum() / count.clamp(min=1)).clamp(min=0)
    variance = spread + LEAST_VARIANCE * count * total
    return _SquaredDistance.apply(found, taught) / variance.clamp(min=LEAST_VARIANCE)


def unexplained_in_all(found: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
    """The mean of `unexplained` over tensors, each as one channel. Raises InputError where their shapes differ."""
    shapes = [[list(t.shape) for t in tensors] for tensors in (found, taught)]
    if shapes[0] != shapes[1] or not found:
        raise InputError(
            f"the outputs in training have shapes {shapes[0]}, the dense net's in evaluation {shapes[1]}; "
            "give the detector methods `lesson` and `imitation` of its own"
        )
    errors = [unexplained(f[None], t[None], 0) for f, t in zip(found, taught, strict=True)]
    return torch.stack(errors).mean()
