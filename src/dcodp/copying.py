"""Copies of models that hold what copy.deepcopy does not copy."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TABLES = (dict, OrderedDict, list, set)
PLAIN = (int, float, bool, str, type(None))
OF_EVERY_MODULE = vars(nn.Module()).keys()  # parameters, buffers and modules are leaves or looked at themselves


def copied(network: nn.Module) -> nn.Module:
    """A deep copy. Compiled functions are shared; results that a module keeps, in whatever, lose their history."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        own = vars(module)
        # Most of the time of a deep copy goes into the ten empty tables that each module keeps for hooks.
        memo |= {id(value): type(value)() for value in own.values() if type(value) in TABLES and not value}
        further = [own[name] for name in own.keys() - OF_EVERY_MODULE if type(own[name]) not in PLAIN]
        for value in _held([further, list(module._buffers.values())], set()):
            if isinstance(value, torch.jit.ScriptFunction):
                memo[id(value)] = value
            elif isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def _held(value: Any, seen: set[int]) -> Iterator[Any]:
    """The value and whatever it holds, but for other modules and what lies in tensors, classes and functions."""
    if isinstance(value, str | int | float | type | None | nn.Module) or id(value) in seen:
        return
    seen.add(id(value))
    yield value
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords, vars(value)]
    elif isinstance(value, Tensor) or callable(value):
        parts = []
    else:
        parts = [getattr(value, "__dict__", {})]
    for part in parts:
        yield from _held(part, seen)
