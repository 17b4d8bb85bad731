"""Tensors that modules keep as plain attributes (text features, anchors): no state dict has them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dcodp.errors import InputError

PREFIX = "dcodp_attribute:"


def plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """`module.attribute` → tensor, for those that are neither parameters nor buffers in the state dict; of lists and
    tuples of tensors `module.attribute[place]`.

    Raises InputError for tensors inside other objects, which could not be put back.
    """
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                found[prefix + key] = value
            elif isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
                found |= {f"{prefix}{key}[{place}]": part for place, part in enumerate(value)}
            elif key not in _OWN and _holds_tensors(value):
                raise InputError(
                    f"{prefix}{key} is a {type(value).__name__} with tensors, which a file of dcodp.save does not hold;"
                    " keep each as an attribute or buffer of its own"
                )
        persistent = module.state_dict().keys()
        found |= {prefix + k: b for k, b in module._buffers.items() if b is not None and k not in persistent}
    return found


_OWN = {key for key in vars(nn.Module()) if key.startswith("_")} | {"_parameters", "_buffers", "_modules"}


def _holds_tensors(value: Any, depth: int = 4) -> bool:
    """In containers and in plain objects (a namespace, a dataclass)."""
    if isinstance(value, Tensor):
        return True
    if depth == 0 or isinstance(value, nn.Module | type) or callable(value):
        return False
    parts = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, list | tuple | set | frozenset):
        parts += value
    elif isinstance(value, dict):
        parts += value.values()
    return any(_holds_tensors(part, depth - 1) for part in parts)


def set_plain_tensors(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `plain_tensors` found, where the model is."""
    device = next((p.device for p in network.parameters()), None)
    for name, tensor in tensors.items():
        owner, _, key = name.rpartition(".")
        module = network.get_submodule(owner)
        moved = tensor if device is None else tensor.to(device)
        key, _, place = key.partition("[")
        if place:
            _set_place(module, key, int(place.rstrip("]")), moved)
            continue
        target = module._buffers if key in module._buffers else vars(module)
        target[key] = moved


def _set_place(module: nn.Module, key: str, place: int, tensor: Tensor) -> None:
    """One entry of a list or tuple; entries come in order, and those beyond the present end are added."""
    before = vars(module).get(key)
    held: list[Any] = list(before) if isinstance(before, list | tuple) else []
    held[place : place + 1] = [tensor]
    vars(module)[key] = tuple(held) if isinstance(before, tuple) else held
