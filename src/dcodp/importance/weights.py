"""Scores from one layer's weights, and gradients: [C, fan_in], a channel per row → [C] float64; lowest is removed.

A convolution's output channels are `weight.flatten(1)`, its input channels `weight.transpose(0, 1).flatten(1)`.
"""

import torch
from torch import Tensor

from dcodp.errors import InputError


def l1(weight: Tensor) -> Tensor:
    """Σ |w| per channel (Li et al., ICLR 2017)."""
    return _checked(weight).abs().sum(1)


def l2(weight: Tensor) -> Tensor:
    """(Σ w²)^½ per channel."""
    return torch.linalg.vector_norm(_checked(weight), dim=1)


def fpgm(weight: Tensor) -> Tensor:
    """Σ_j ‖w_i − w_j‖₂, small near the geometric median of the channels (He et al., CVPR 2019, Eq. 6)."""
    weight = _checked(weight)
    return torch.cdist(weight, weight).sum(1)


def lamp(weight: Tensor) -> Tensor:
    """‖w_i‖² / Σ {‖w_j‖² : ‖w_j‖ ≥ ‖w_i‖}: LAMP (Lee et al., ICLR 2021) with channels in place of single weights.

    Comparable across layers: each layer's strongest channel scores 1. Deviation: equal channels score equally (each
    counts the others), where LAMP breaks ties by index. Channels of zeros score 0.
    """
    squares = _checked(weight).square().sum(1)
    not_smaller = squares[None, :] >= squares[:, None]
    return squares / (not_smaller * squares).sum(1).clamp(min=torch.finfo(torch.float64).tiny)


def batchnorm_scale(gamma: Tensor) -> Tensor:
    """|γ| (Network Slimming, Liu et al., ICCV 2017): the batch norm's weight [C] → [C] float64."""
    if gamma.ndim != 1:
        raise InputError(f"a batch norm's scale is [C], not {list(gamma.shape)}; give bn.weight")
    return _checked(gamma[:, None])[:, 0].abs()


def taylor(weight: Tensor, grad: Tensor) -> Tensor:
    """(Σ g·w)² per channel: the squared first-order change of the loss when the whole channel goes
    (Molchanov et al., CVPR 2019, the group contribution). Over several batches, average these squares.
    """
    if weight.shape != grad.shape:
        raise InputError(f"weight {list(weight.shape)} and gradient {list(grad.shape)} differ; give one layer's pair")
    return (_checked(weight) * _checked(grad)).sum(1).square()


def snip(weight: Tensor, grad: Tensor) -> Tensor:
    """Σ |g·w| per channel: the connections' sensitivities (SNIP, Lee et al., ICLR 2019, Eq. 6) without their common
    divisor, summed over a filter. On trained weights, where the paper scores untrained ones."""
    return (_checked(weight) * _checked(grad)).abs().sum(1)


def gradient_flow(weight: Tensor, product: Tensor) -> Tensor:
    """Σ w·Hg per channel, `product` = H g: how much gradient flow a filter carries (GraSP, Wang et al., ICLR 2020,
    Eq. 8 with the sign turned, so that what raises the flow least goes first); negative where it hinders it."""
    return (_checked(weight) * _checked(product)).sum(1)


def random(channels: int, generator: torch.Generator | None = None) -> Tensor:
    """Uniform scores [C] float64 on the generator's device: the baseline every criterion has to beat."""
    device = generator.device if generator is not None else None
    return torch.rand(channels, dtype=torch.float64, generator=generator, device=device)


def _checked(weight: Tensor) -> Tensor:
    """weight [C, fan_in] → the same in float64; InputError where it is not that, or not finite."""
    if weight.ndim != 2 or not weight.is_floating_point():
        raise InputError(f"weights are [channels, fan-in] floats, not {list(weight.shape)} {weight.dtype}; flatten(1)")
    if not bool(torch.isfinite(weight).all()):
        raise InputError("weights or gradients hold NaN or infinite values; check the checkpoint and the loss")
    return weight.detach().double()
