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
    """What differs, or None."""
    # Not strict: the modules rename what older versions of torchvision called differently, then tell what is left.
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # one line per tensor of another shape, below a heading
        return str(error).splitlines()[1].strip().rstrip(".")
    for names, verb in ((result.missing_keys, "missing"), (result.unexpected_keys, "unknown")):
        names = [name for name in names if not name.endswith("num_batches_tracked")]
        if names:
            return f"{names[0]} is {verb}" + (f" and {len(names) - 1} more are" if names[1:] else "")
    return None
