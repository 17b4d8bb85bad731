"""Sparsity training for Network Slimming (Liu et al., ICCV 2017, Eq. 1): an L1 penalty on batch-norm scales."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from dcodp.calibration.statistic import batchnorm_scales
from dcodp.graph import CouplingGraph


def prunable_scales(network: nn.Module, graph: CouplingGraph) -> list[str]:
    """The scales whose channels can be removed: those in a coupling group."""
    in_groups = {site.tensor for group in graph.groups for site in group.sites if site.role == "vector"}
    return [name for name in batchnorm_scales(network) if name in in_groups]


def sparsity_penalty(network: nn.Module, rate: float, names: Collection[str] | None = None) -> Tensor:
    """rate · Σ |γ| over the scales `names` (default: all), a scalar to add to the loss; rates of 1e-5 … 1e-2 are usual.

    It is differentiated like any loss, where the authors add rate · sign(γ) to the gradient by hand: the same.
    """
    scales = batchnorm_scales(network)
    chosen = scales.values() if names is None else [scales[name] for name in names]
    sums = [scale.abs().sum() for scale in chosen]
    return rate * torch.stack(sums).sum() if sums else torch.zeros((), device=next(network.parameters()).device)
