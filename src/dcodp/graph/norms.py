"""LayerNorm, RMSNorm and GroupNorm of one group over the channels that are left, with the statistics of all of them.

With n dense and k kept channels, those removed being 0: mean = (Σ kept)/n, and
variance = (Σ (kept − mean)² + (n − k)·mean²)/n, which is (Σ kept²)/n − mean² without its cancellation. Where statistics
are taken over positions as well, each channel counts as many times as there are positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

KINDS: tuple[str, ...] = ("layer", "rms", "group")


def normalise(
    x: Tensor, kind: str, dim: int, dense: int, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """x normalised along `dim` (negative; with "group" also along all behind it) as if it had `dense` channels there.

    16-bit numbers are summed in 32.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    dims = tuple(range(dim, 0)) if kind == "group" else (dim,)
    positions = x.shape[dim + 1 :].numel() if kind == "group" else 1
    count = dense * positions
    if kind == "rms":
        squares = wide.square().sum(dims, keepdim=True)
    else:
        mean = wide.sum(dims, keepdim=True) / count
        wide = wide - mean
        squares = wide.square().sum(dims, keepdim=True) + (dense - x.shape[dim]) * positions * mean.square()
    out = wide * torch.rsqrt(squares / count + eps)
    if weight is not None:
        out = out * _along(weight, dim)
    return (out if bias is None else out + _along(bias, dim)).to(x.dtype)


def _along(vector: Tensor, dim: int) -> Tensor:
    return vector if dim == -1 else vector.view(-1, *[1] * (-dim - 1))


class PrunedNorm(nn.Module):
    """What `prune` puts in place of a norm that loses channels; the same parameters under the same names."""

    dense_channels: int
    normalised_dim: int
    normalised_by: int  # number into KINDS

    def forward(self, x: Tensor) -> Tensor:
        kind = KINDS[self.normalised_by]
        weight, bias = (self._parameters.get(name) for name in ("weight", "bias"))
        return normalise(x, kind, self.normalised_dim, self.dense_channels, epsilon(self, x.dtype), weight, bias)

    def extra_repr(self) -> str:
        return f"{KINDS[self.normalised_by]} norm over {self.dense_channels} dense channels, eps={self.eps}"


class PrunedLayerNorm(PrunedNorm, nn.LayerNorm):
    """The same, for code that asks whether a module is a LayerNorm."""


class PrunedGroupNorm(PrunedNorm, nn.GroupNorm):
    """The same, for code that asks whether a module is a GroupNorm."""


def become_pruned(module: nn.Module, numbers: dict[str, Any]) -> None:
    """Make a module (in place, so that it stays the same under all its names) the norm that a plan describes."""
    kinds = {nn.LayerNorm: PrunedLayerNorm, nn.GroupNorm: PrunedGroupNorm}
    module.__class__ = next((p for kind, p in kinds.items() if isinstance(module, kind)), PrunedNorm)  # type: ignore[assignment]
    for name in ("dense_channels", "normalised_dim", "normalised_by"):
        setattr(module, name, numbers[name])


def epsilon(module: nn.Module, dtype: torch.dtype) -> float:
    """What a norm adds before the root."""
    names = ("eps", "epsilon", "variance_epsilon", "norm_eps")
    value = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    return torch.finfo(dtype).eps if value is None else float(value)
