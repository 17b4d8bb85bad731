"""Copies of models that hold what copy.deepcopy does not copy."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def copied(network: nn.Module) -> nn.Module:
    """A deep copy. Compiled functions are shared; results that a module keeps lose their history."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, torch.jit.ScriptFunction):
                memo[id(value)] = value
            elif isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)
