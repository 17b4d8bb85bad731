"""Loads a state dict whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dcodp.errors import InputError

SHOWN = 3  # mismatching tensors named in an error
COUNTER = "num_batches_tracked"  # of batch norms: may be absent or surplus


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path, remedy: str = "give weights of this one"
) -> None:
    """Loads `state` into `module`; both must have the same names and shapes.

    Counters of batch norms may be absent or surplus. Raises InputError naming `source` and the first differences, and
    ending in `remedy`; the module then holds what it held.
    """
    before = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    # Not strict: the modules rename what older versions of torchvision called differently, then tell what is left.
    try:
        result = module.load_state_dict(state, strict=False)
        wrong = _names(result.missing_keys, "missing") + _names(result.unexpected_keys, "unexpected")
    except RuntimeError as error:  # one line per tensor of another shape, below a heading
        wrong = differences(state, before) or [str(error).splitlines()[-1].strip()]
    if wrong:
        module.load_state_dict(before)
        raise InputError(another_architecture(source, wrong, remedy))


def require_same_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises InputError naming the first tensors of `source` that a network with the tensors `own` cannot take."""
    if wrong := differences(state, own):
        raise InputError(another_architecture(source, wrong, "give weights of this one"))


def differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """What a network with the tensors `own` does not find in `state`, and the other way round."""
    wrong = _names([k for k in own if k not in state], "missing")
    wrong += _names([k for k in state if k not in own], "unexpected")
    shapes = [(k, tuple(state[k].shape), tuple(own[k].shape)) for k in own if k in state]
    return wrong + [f"{k} has shape {theirs}, not {ours}" for k, theirs, ours in shapes if theirs != ours]


def _names(names: list[str], what: str) -> list[str]:
    return [f"{name} is {what}" for name in names if not name.endswith(COUNTER)]


def another_architecture(source: str | Path, wrong: list[str], remedy: str) -> str:
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return f"{source} is of another architecture: {'; '.join(wrong[:SHOWN])}{more}; {remedy}"
