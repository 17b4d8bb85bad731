"""Where a layer's output can take a constant without a new parameter: its bias, or the mean of the norm behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dcodp.repairs.case import Case


def norms_behind(case: Case) -> dict[str, str]:
    """Weight name → the running mean of the batch norm that reads the layer's output, seen on one calibration batch."""
    remembered = case.evidence.remembered
    if "norms" not in remembered:
        remembered["norms"] = _seen_norms(case)
    return remembered["norms"]


def _seen_norms(case: Case) -> dict[str, str]:
    names = {id(module): name for name, module in case.dense.named_modules()}
    made: dict[int, tuple[str, Any]] = {}  # id of an output → its layer; the output stays alive, and its id its own
    found: dict[str, str] = {}

    def remember(module: nn.Module, args: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            made[id(out)] = names[id(module)], out

    def look_up(module: nn.Module, args: Any) -> None:
        if args and id(args[0]) in made:
            found[_inside(made[id(args[0])][0], "weight")] = _inside(names[id(module)], "running_mean")

    handles = []
    for module in case.dense.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            handles.append(module.register_forward_hook(remember))
        elif isinstance(getattr(module, "running_mean", None), Tensor):
            handles.append(module.register_forward_pre_hook(look_up))
    try:
        with torch.no_grad():
            case.forward(case.dense)(next(iter(case.batches())))
    finally:
        for handle in handles:
            handle.remove()
    return found


def add_constant(network: nn.Module, weight: str, constant: Tensor, norms: dict[str, str]) -> bool:
    """Adds `constant` [filters] to the output of the layer; False where there is no place for it."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    bias = _inside(weight.rpartition(".")[0], "bias")
    if bias in tensors:
        tensors[bias].add_(constant.to(tensors[bias]))
        return True
    if weight in norms:  # what is added before the norm is what the mean takes away
        tensors[norms[weight]].sub_(constant.to(tensors[norms[weight]]))
        return True
    return False


def takes_constant(network: nn.Module, weight: str, norms: dict[str, str]) -> bool:
    return weight in norms or _inside(weight.rpartition(".")[0], "bias") in dict(network.named_parameters())


def _inside(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name
