"""Loads a state dict whole or not at all."""

from __future__ import annotations

from torch import Tensor, nn

from dcodp.errors import InputError


def load_exactly(module: nn.Module, state: dict[str, Tensor], source: str, remedy: str) -> None:
    """Loads `state` into `module`; both must have the same names and shapes.

    Counters of batch norm (`num_batches_tracked`) may be absent or surplus. Raises InputError naming `source` and
    the first difference, and ending in `remedy`.
    """
    problem = _load(module, state)
    if problem:
        raise InputError(f"{source} does not fit: {problem}; {remedy}")


def _load(module: nn.Module, state: dict[str, Tensor]) -> str | None:
    own = module.state_dict()
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            return f"{name} is {list(state[name].shape)} there and {list(tensor.shape)} here"
    # Not strict: the modules rename what older versions of torchvision called differently, then tell what is left.
    result = module.load_state_dict(state, strict=False)
    counted = lambda names: [name for name in names if not name.endswith("num_batches_tracked")]  # noqa: E731
    missing, surplus = counted(result.missing_keys), counted(result.unexpected_keys)
    if missing:
        return f"{missing[0]} and {len(missing) - 1} more are missing" if missing[1:] else f"{missing[0]} is missing"
    if surplus:
        return f"{surplus[0]} and {len(surplus) - 1} more are unknown" if surplus[1:] else f"{surplus[0]} is unknown"
    return None
