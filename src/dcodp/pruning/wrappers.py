"""Names that differ by the wrapper of a model alone, and what to say of them."""

from __future__ import annotations

from collections.abc import Container

WRAPPERS = {"module.": "DataParallel (or another wrapper that calls it .module)", "_orig_mod.": "torch.compile"}


def wrapper_of(name: str, known: Container[str]) -> str:
    """What to say where a name is not known but for a wrapper in front of it; "" where it is in neither form."""
    for prefix, wrapper in WRAPPERS.items():
        if name.removeprefix(prefix) in known or prefix + name in known:
            return f'known with or without "{prefix}" in front; one of the two models is wrapped in {wrapper}: ' + (
                f"take its .{prefix[:-1]} throughout"
            )
    return ""
