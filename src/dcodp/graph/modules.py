"""Numbers that modules keep about their channels, and which dimension each of them follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from dcodp.graph.expressions import AttributeKey, FromAttribute
from dcodp.graph.labels import labels_of
from dcodp.graph.sizes import TracedInt, TracedSize, Uses

# torch.nn's modules with parameters whose sizes are understood
KNOWN = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm,
         nn.PReLU, nn.Embedding, nn.MultiheadAttention, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList,
         nn.ParameterDict)  # fmt: skip


SEQUENCES: dict[type, type] = {list: list, tuple: tuple, torch.Size: TracedSize}  # what becomes of them in a trace


@dataclass(frozen=True, eq=False)
class Following:
    """`module.attribute` = channels left among `labels` × numerator / denominator + plus."""

    module: str
    attribute: str
    labels: np.ndarray
    numerator: int = 1
    denominator: int = 1
    plus: int = 0
    position: int | None = None  # in a list or tuple
    certain: bool = True  # False: a guess from an equal value, for attributes that the forward pass never reads


def is_library_module(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def is_opaque(module: nn.Module) -> bool:
    """One of torch.nn's modules that keeps more about its parameters than is understood (recurrent ones, say)."""
    inherited = [kind for kind in type(module).__mro__ if kind is not nn.Module]
    return not isinstance(module, KNOWN) and any(kind.__module__.startswith("torch.nn.modules.") for kind in inherited)


def trace_attributes(modules: dict[str, nn.Module], uses: Uses) -> dict[AttributeKey, int]:
    """Replace the integer attributes of a (copied) model's own modules by `TracedInt`s; returns their values.

    torch.nn's modules are left out: what their numbers mean is known (`follow_module_sizes`).
    """
    dense: dict[AttributeKey, int] = {}
    for name, module in modules.items():
        if is_library_module(module):
            continue
        for key, value in list(vars(module).items()):
            if type(value) is int:
                dense[name, key, None] = value
                vars(module)[key] = TracedInt(value, FromAttribute((name, key, None)), uses)
            elif type(value) in SEQUENCES and value and all(type(v) is int for v in value):
                dense.update({(name, key, i): v for i, v in enumerate(value)})
                vars(module)[key] = SEQUENCES[type(value)](
                    TracedInt(v, FromAttribute((name, key, i)), uses) for i, v in enumerate(value)
                )
    return dense


def suggest(
    name: str, modules: dict[str, nn.Module], dimensions: Iterable[np.ndarray | None], only: str | None = None
) -> list[Following]:
    """Attributes of a module whose value equals the size of one of `dimensions`."""
    module = modules[name]
    if is_library_module(module):
        return []
    sizes = {len(labels): labels for labels in dimensions if labels is not None}
    return [
        Following(name, key, sizes[value.number], certain=False)
        for key, value in vars(module).items()
        if type(value) is TracedInt and value.number in sizes and only in (None, key)
    ]


def follow_module_sizes(modules: dict[str, nn.Module]) -> list[Following]:
    """What torch.nn's layers keep about the shapes of their own parameters."""
    return [following for name, module in modules.items() for following in _library_sizes(name, module)]


def _library_sizes(name: str, module: nn.Module) -> Iterable[Following]:
    weight = getattr(module, "weight", None)
    if weight is None:
        weight = getattr(module, "running_mean", None)
    if weight is None or not hasattr(weight, "dim"):
        return
    axes = labels_of(weight)
    if isinstance(module, nn.modules.conv._ConvNd):
        yield from _convolution_sizes(name, module, axes)
    elif isinstance(module, nn.Linear):
        yield from _present(name, {"out_features": axes[0], "in_features": axes[1]})
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        yield from _present(name, {"num_features": axes[0]})
    elif isinstance(module, nn.GroupNorm):
        yield from _present(name, {"num_channels": axes[0]})
    elif isinstance(module, nn.PReLU):
        yield from _present(name, {"num_parameters": axes[0]})


def _convolution_sizes(name: str, module: Any, axes: list[np.ndarray | None]) -> Iterable[Following]:
    own, other = ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")
    yield from _present(name, {own: axes[0]})
    if module.groups == 1:
        yield from _present(name, {other: axes[1]})
    elif axes[0] is not None:
        yield Following(name, other, axes[0], getattr(module, other), getattr(module, own))


def _present(name: str, sizes: dict[str, np.ndarray | None]) -> Iterable[Following]:
    for attribute, labels in sizes.items():
        if labels is not None:
            yield Following(name, attribute, labels)
