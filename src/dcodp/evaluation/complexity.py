"""How large and how fast a network is: parameters, floating-point operations, latency."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class LatencyResult:
    """Wall-clock time of one call; the 10th and 90th percentiles show how steady the machine was."""

    median_ms: float
    p10: float  # ms
    p90: float  # ms
    threads: int  # CPU threads that torch used
    device: str  # "cpu" or the name of the GPU
    runs: int


def count_parameters(module: nn.Module) -> int:
    """All parameters, trained or frozen; shared ones once, buffers (batch-norm statistics) not at all."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Floating-point operations of `module(*inputs)` in eval mode, 2 per multiply-accumulate.

    Convolutions, matrix products and attention count; element-wise operations do not, as is usual in the field.
    The module is left as it was.
    """
    with as_found(module), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*inputs)
    return counter.get_total_flops()


def latency_ms(module: nn.Module, inputs: tuple[Any, ...], runs: int = 20, warmup: int = 5) -> LatencyResult:
    """Times `runs` calls of `module(*inputs)` in eval mode after `warmup` untimed ones, waiting for a GPU each time.

    The inputs decide the batch size (published figures: 1). The module is left as it was.
    """
    device = device_of(module)
    with as_found(module), torch.no_grad():
        module.eval()
        times = [_timed_ms(module, inputs, device) for _ in range(warmup + runs)][warmup:]
    p10, median, p90 = (float(v) for v in np.percentile(times, (10, 50, 90)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return LatencyResult(median, p10, p90, torch.get_num_threads(), name, runs)


def device_of(module: nn.Module) -> torch.device:
    """The device of the first parameter; a module without parameters computes on the CPU."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@contextmanager
def as_found(module: nn.Module) -> Iterator[None]:
    """Puts every submodule's attributes back afterwards: its mode, and what detection heads cache in `forward`."""
    before = [(m, dict(vars(m)), dict(m._buffers)) for m in module.modules()]
    try:
        yield
    finally:
        for m, attributes, buffers in before:
            vars(m).clear()
            vars(m).update(attributes)
            m._buffers.clear()
            m._buffers.update(buffers)


def _timed_ms(module: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    module(*inputs)
    _wait(device)
    return 1e3 * (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
