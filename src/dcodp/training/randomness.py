"""The global generators of Python, numpy and torch as one value, and determinism on the CPU."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """Plain containers and tensors only, so that a checkpoint with it loads with weights_only=True."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """The generators as `random_states` found them; CUDA's only where both were on a GPU."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within, the generators are afterwards as they were: later stages see no difference."""
    states = random_states(device)
    try:
        yield
    finally:
        restore_random_states(states, device)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On the CPU the same bits in every run with as many threads; on a GPU the caller decides."""
    if device.type != "cpu":
        yield
        return
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    options: Any = torch.utils.deterministic
    fill, options.fill_uninitialized_memory = options.fill_uninitialized_memory, False  # it would only cost time
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        options.fill_uninitialized_memory = fill
