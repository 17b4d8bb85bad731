"""Numbers that the forward pass never reads: re-parameterisation, fusing and export may (`groups`, `in_chs`, …).

Such an attribute of a module is taken to mean the channels that enter or leave it, or a number of one of its layers,
if it has that value and nothing else with the same value changes differently. What cannot be told is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from dcodp.graph.expressions import AttributeKey
from dcodp.graph.linear import Linear
from dcodp.graph.modules import is_library_module
from dcodp.graph.sizes import TracedInt

Form = tuple[Linear, int]  # a number of channels and what it is divided by
ALIKE = {
    "in": ("in_channels", "in_features", "num_features"),
    "out": ("out_channels", "out_features"),
    "group": ("groups", "num_groups"),
}


def guess_unread(
    modules: dict[str, nn.Module], sizes: dict[AttributeKey, Form], read: set[AttributeKey]
) -> tuple[dict[AttributeKey, Form], list[str]]:
    """Attributes that nothing has read → what they follow, and sentences about those that may be stale.

    `sizes` are the attributes of which it is known what they follow.
    """
    found: dict[AttributeKey, Form] = {}
    notes = []
    for name, module in modules.items():
        if is_library_module(module):
            continue
        layers = list(_numbers_of_layers(name, modules, sizes))
        for attribute, value in vars(module).items():
            key = (name, attribute, None)
            if type(value) is not TracedInt or key in read or key in sizes or value.number < 2:
                continue
            equal = [(other, form) for other, number, form in layers if number == value.number]
            if not any(form is not None for _, form in equal):
                continue
            form = _agreed(attribute, equal)
            if form is None:
                notes.append(f"{name or 'the model'}.{attribute} = {value.number} is not read by the forward pass and "
                             "keeps its value: code that fuses or exports the pruned net may read it")  # fmt: skip
            else:
                found[key] = form
    return found, notes


def _numbers_of_layers(
    name: str, modules: dict[str, nn.Module], sizes: dict[AttributeKey, Form]
) -> Iterator[tuple[str, int, Form | None]]:
    """(attribute, dense number, what it follows) of the layers inside a module; None: the number stays."""
    prefix = f"{name}." if name else ""
    for child, module in modules.items():
        if child.startswith(prefix) and child != name and is_library_module(module):
            for attribute, value in vars(module).items():
                if type(value) is int and any(attribute in names for names in ALIKE.values()):
                    yield attribute, value, sizes.get((child, attribute, None))


def _agreed(attribute: str, equal: list[tuple[str, Form | None]]) -> Form | None:
    """What all numbers with that value follow; if they differ, what those of the same meaning follow."""
    alike = next((names for word, names in ALIKE.items() if word in attribute.lower()), ())
    for candidates in (equal, [c for c in equal if c[0] in alike], [c for c in equal if c[0] == attribute]):
        forms: list[Any] = [form for _, form in candidates]
        if forms and forms[0] is not None and all(_same(form, forms[0]) for form in forms):
            return forms[0]
    return None


def _same(one: Form | None, other: Form) -> bool:
    """As numbers: one/its divisor = other/its divisor."""
    return one is not None and one[0].times(other[1]) == other[0].times(one[1])
