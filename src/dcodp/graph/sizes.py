"""Where a size came from: integers that remember the tensor dimension or module attribute they were read from.

`x.view(b, self.heads, c // self.heads, n)` fixes sizes in Python. During a trace, module attributes and tensor shapes
are `TracedInt`s, so that each size that a model passes to a reshaping operation arrives as an expression. Every such
use is a `SizeRule`: expression = number of channels left along a dimension. `solve` finds the attribute values that
make all rules hold whatever channels are removed; where none can, it ties or fixes the channels involved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

AttributeKey = tuple[str, str, int | None]  # module, attribute, position in a list or tuple


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
    """`left` operator `right`."""

    operator: str
    left: Any
    right: Any


class TracedInt(int):
    """An int that remembers its origin through + - * //; anything else gives a plain number."""

    origin: Any
    read: list[Any] | None

    def __new__(cls, value: int, origin: Any, read: list[Any] | None = None) -> TracedInt:
        self = super().__new__(cls, value)
        self.origin, self.read = origin, read
        return self

    def _derive(self, operator: str, left: Any, right: Any, value: int) -> TracedInt:
        self.note_read()
        return TracedInt(value, Arithmetic(operator, origin_of(left), origin_of(right)), self.read)

    def note_read(self) -> None:
        if self.read is not None:
            self.read.append(self.origin)

    def __add__(self, other: Any) -> Any:
        return self._derive("+", self, other, int(self) + int(other)) if isinstance(other, int) else int(self) + other

    def __radd__(self, other: Any) -> Any:
        return self._derive("+", other, self, int(other) + int(self)) if isinstance(other, int) else other + int(self)

    def __sub__(self, other: Any) -> Any:
        return self._derive("-", self, other, int(self) - int(other)) if isinstance(other, int) else int(self) - other

    def __rsub__(self, other: Any) -> Any:
        return self._derive("-", other, self, int(other) - int(self)) if isinstance(other, int) else other - int(self)

    def __mul__(self, other: Any) -> Any:
        return self._derive("*", self, other, int(self) * int(other)) if isinstance(other, int) else int(self) * other

    def __rmul__(self, other: Any) -> Any:
        return self._derive("*", other, self, int(other) * int(self)) if isinstance(other, int) else other * int(self)

    def __floordiv__(self, other: Any) -> Any:
        return (
            self._derive("//", self, other, int(self) // int(other)) if isinstance(other, int) else int(self) // other
        )

    def __rfloordiv__(self, other: Any) -> Any:
        return (
            self._derive("//", other, self, int(other) // int(self)) if isinstance(other, int) else other // int(self)
        )

    def __pow__(self, other: Any, modulo: Any = None) -> Any:  # attention scales: a constant of the dense net
        self.note_read()
        return pow(int(self), other, modulo)

    def __truediv__(self, other: Any) -> Any:
        self.note_read()
        return int(self) / other

    def __reduce__(self) -> Any:
        return int, (int(self),)

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)

    __hash__ = int.__hash__


def origin_of(value: Any) -> Any:
    """The expression behind a number: its origin, or the number itself."""
    return value.origin if isinstance(value, TracedInt) else int(value)


@dataclass(eq=False)
class SizeRule:
    """`expression` must equal the channels left along a dimension with `labels` (None: always `size`)."""

    expression: Any
    labels: np.ndarray | None
    size: int
    where: str


def leaves(expression: Any) -> Iterable[Any]:
    """The attributes and dimensions that an expression reads."""
    if isinstance(expression, Arithmetic):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression
