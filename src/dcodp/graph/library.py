"""Numbers of torch.nn's layers that the model's own code reads (`self.conv.out_channels`).

While a trace lasts, reading one from outside torch gives a number that remembers. PyTorch's own code gets plain ints:
what it does with them is known. Values follow the layers' parameters, so that each number read becomes a rule.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from dcodp.graph.expressions import AttributeKey, FromAttribute, SizeRule, leaves
from dcodp.graph.modules import Following, follow_module_sizes, is_library_module
from dcodp.graph.recording import Recorder
from dcodp.graph.sizes import TracedInt, traced_in

SIZES: dict[type, tuple[str, ...]] = {
    nn.modules.conv._ConvNd: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    nn.modules.batchnorm._NormBase: ("num_features",),
    nn.GroupNorm: ("num_groups", "num_channels"),
    nn.LayerNorm: ("normalized_shape",),
    nn.RMSNorm: ("normalized_shape",),
    nn.PReLU: ("num_parameters",),
    nn.Embedding: ("num_embeddings", "embedding_dim"),
}
OWN_CODE = ("torch.", "dcodp.graph", "dcodp.copying", "copy")


class _Size:
    """A descriptor in place of an attribute that lives in the instance's dictionary."""

    def __init__(self, name: str):
        self.name = name
        self.traced: dict[int, tuple[weakref.ref[nn.Module], str, Recorder]] = {}  # by id of the module

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        if module is None:
            return self
        if self.name not in vars(module):
            raise AttributeError(f"{type(module).__name__!r} object has no attribute {self.name!r}")
        value = vars(module)[self.name]
        reference, where, recorder = self.traced.get(id(module), (None, "", None))
        if recorder is None or reference is None or reference() is not module or _is_own_code(sys._getframe(1)):
            return value
        remembering = _remembering(value, where, self.name, recorder)
        if not recorder.uses.plain:
            return remembering
        for number in traced_in(remembering):
            number.note_value()
        return value

    def __set__(self, module: Any, value: Any) -> None:
        vars(module)[self.name] = value

    def __delete__(self, module: Any) -> None:
        del vars(module)[self.name]


def _is_watched(module: nn.Module, recorder: Recorder) -> bool:
    """Attributes of the model's own modules are watched in their own way, where sizes remember."""
    return is_library_module(module) or recorder.uses.plain


def _is_own_code(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(OWN_CODE)


def _remembering(value: Any, where: str, name: str, recorder: Recorder) -> Any:
    if type(value) is int:
        return TracedInt(value, FromAttribute((where, name, None)), recorder.uses)
    if isinstance(value, tuple | list) and all(type(v) is int for v in value):
        keys: list[AttributeKey] = [(where, name, i) for i in range(len(value))]
        return type(value)(TracedInt(v, FromAttribute(k), recorder.uses) for v, k in zip(value, keys, strict=True))
    return value


@contextmanager
def library_watched(recorder: Recorder) -> Iterator[None]:
    """While it lasts, the model's code reads sizes of library modules as numbers that remember."""
    placed: list[tuple[type, str]] = []
    modules = [(name, m) for name, m in recorder.named_modules.items() if _is_watched(m, recorder)]
    try:
        for kind, names in SIZES.items():
            own = [(name, m) for name, m in modules if isinstance(m, kind)]
            for attribute in names if own else ():
                size = _Size(attribute)
                size.traced = {id(m): (weakref.ref(m), name, recorder) for name, m in own}
                setattr(kind, attribute, size)
                placed.append((kind, attribute))
        yield
    finally:
        for kind, attribute in placed:
            delattr(kind, attribute)


def library_numbers(recorder: Recorder) -> dict[AttributeKey, int]:
    """The dense values of those that were looked at."""
    found = {}
    for key in {leaf for origin in recorder.uses.read for leaf in _keys(origin)}:
        module = recorder.named_modules.get(key[0])
        if module is not None and _is_watched(module, recorder):
            value = vars(module)[key[1]]
            found[key] = int(value if key[2] is None else value[key[2]])
    return found


def _keys(origin: Any) -> Iterator[AttributeKey]:
    for leaf in leaves(origin):
        if isinstance(leaf, FromAttribute):
            yield leaf.key


def library_rules(recorder: Recorder, numbers: dict[AttributeKey, int]) -> list[SizeRule]:
    """Each number that was looked at is what its layer's parameters are long; where that is not known it stays."""
    followings = [*recorder.followings, *follow_module_sizes(recorder.named_modules)]
    rules = []
    for key, number in numbers.items():
        own = [f for f in followings if f.certain and (f.module, f.attribute, f.position) == key]
        labels = [found for f in own if (found := _repeated(f)) is not None and len(found) == number]
        origin = FromAttribute(key)
        rules += [SizeRule(origin, found, number, key[0]) for found in labels]
        if len(labels) < len(own) or not own:
            rules.append(SizeRule(origin, None, number, key[0]))
    return rules


def _repeated(following: Following) -> np.ndarray | None:
    """labels with one entry for each that the attribute counts; None where it counts in another way."""
    if following.plus or following.numerator % following.denominator:
        return None
    return np.repeat(following.labels, following.numerator // following.denominator)
