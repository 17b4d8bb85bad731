"""One net of the benchmark: how to build and call it, and where to look at what it computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One net: how to build and call it, and where to look at what it computes.

    `heads` are modules whose outputs are compared instead of the result: what is left after non-maximum suppression
    shows little of them, and among equal scores it is arbitrary. `ignored` are the modules that torch-pruning's own
    examples leave alone.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    size: int = 64  # pixels
    first_result: bool = False  # only the first part of the result is an output, the rest is passed-on features
    takes_list: bool = False  # images as a list of [3, S, S] instead of [B, 3, S, S]
    heads: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    convolutional_detector: bool = False  # at least 70 % of the parameters must go at ratio 0.5
    least_removed: float | None = None  # the share that must go at ratio 0.5, if another one
    needs: str = "torch"  # the package it comes from
    named_result: tuple[str, ...] = ()  # the entries of the result that are outputs, where it has names
    peer: bool = True  # whether torch-pruning is asked as well

    @property
    def missing(self) -> str | None:
        """Why the net cannot be built here; None where it can."""
        return None if importlib.util.find_spec(self.needs) else f"{self.needs} is not installed"

    @property
    def must_remove(self) -> float:
        return self.least_removed if self.least_removed is not None else 0.70 * self.convolutional_detector

    def inputs(self, size: int, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
        return ([image[0]],) if self.takes_list else (image,)

    def outputs(self, result: Any) -> Any:
        """What must stay."""
        if self.named_result:
            return [result[name] for name in self.named_result]
        return result[0] if self.first_result else result

    def compared(self, result: Any) -> Any:
        return [] if self.heads else self.outputs(result)
