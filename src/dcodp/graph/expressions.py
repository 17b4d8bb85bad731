"""Expressions of sizes: a tensor's dimension, a module's attribute, arithmetic with them, and what must equal them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

DECIDES = "a number of channels decides something"  # the reason why it must stay

AttributeKey = tuple[str, str, int | None]  # module, attribute, position in a list or tuple

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}


@dataclass(frozen=True, eq=False)
class FromDimension:
    """The size of a labelled tensor dimension."""

    labels: np.ndarray


@dataclass(frozen=True)
class FromAttribute:
    """A module's integer attribute."""

    key: AttributeKey


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """`left` operator `right`; operators are + - * // %."""

    operator: str
    left: Any
    right: Any


@dataclass(eq=False)
class SizeRule:
    """`expression` must equal the channels left along a dimension with `labels` (None: always `size`)."""

    expression: Any
    labels: np.ndarray | None
    size: int
    where: str
    value: bool = False  # the number itself decided something


def leaves(expression: Any) -> Iterable[Any]:
    """The attributes and dimensions that an expression reads."""
    if isinstance(expression, Arithmetic):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def identity(origin: Any) -> Any:
    """The same for the same dimension, attribute or expression of them."""
    if isinstance(origin, FromDimension):
        return len(origin.labels), int(origin.labels[0]), int(origin.labels[-1])
    if isinstance(origin, Arithmetic):
        return origin.operator, identity(origin.left), identity(origin.right)
    return origin
