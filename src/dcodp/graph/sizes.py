"""Where a size came from: integers that remember the tensor dimension or module attribute they were read from.

`x.view(b, self.heads, c // self.heads, n)` fixes sizes in Python. During a trace, module attributes and tensor shapes
are `TracedInt`s, so that each size that a model passes to a reshaping operation arrives as an expression. Every such
use is a `SizeRule`: expression = number of channels left along a dimension. `solve` finds the attribute values that
make all rules hold whatever channels are removed; where none can, it ties or fixes the channels involved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class Uses:
    """What the model's code did with the numbers it was given."""

    read: list[Any] = field(default_factory=list)  # origins that it looked at
    fixed: list[tuple[Any, int, str]] = field(default_factory=list)  # origins whose number must stay, and where
    modules: list[str] = field(default_factory=list)  # the modules whose forward is running, innermost last

    def fix(self, origin: Any, value: int) -> None:
        self.fixed.append((origin, value, (self.modules[-1] if self.modules else "") or "the model"))


class TracedInt(int):
    """An int that remembers its origin through + - * //.

    Anything else (powers, quotients, floats) gives a plain number, which the pruned model would compute differently:
    then the number must stay. Two of them that were found equal must stay equal, since the code chose its way by that.
    (Python asks us first except where a float stands on the left: `0.5 * n` goes unseen, `n * 0.5` does not.)
    """

    origin: Any
    uses: Uses | None

    def __new__(cls, value: int, origin: Any, uses: Uses | None = None) -> TracedInt:
        self = super().__new__(cls, value)
        self.origin, self.uses = origin, uses
        return self

    def _derive(self, operator: str, left: Any, right: Any, value: int) -> TracedInt:
        self.note_read()
        return TracedInt(value, Arithmetic(operator, origin_of(left), origin_of(right)), self.uses)

    def note_read(self) -> None:
        if self.uses is not None:
            self.uses.read.append(self.origin)

    def note_value(self) -> None:
        """The number itself matters, not only as a size."""
        self.note_read()
        if self.uses is not None:
            self.uses.fix(self.origin, int(self))

    def __add__(self, other: Any) -> Any:
        return self._derive("+", self, other, int(self) + int(other)) if isinstance(other, int) else int(self) + other

    def __radd__(self, other: Any) -> Any:
        return self._derive("+", other, self, int(other) + int(self)) if isinstance(other, int) else other + int(self)

    def __sub__(self, other: Any) -> Any:
        return self._derive("-", self, other, int(self) - int(other)) if isinstance(other, int) else int(self) - other

    def __rsub__(self, other: Any) -> Any:
        return self._derive("-", other, self, int(other) - int(self)) if isinstance(other, int) else other - int(self)

    def __neg__(self) -> Any:
        return self._derive("-", 0, self, -int(self))

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, int):
            return self._derive("*", self, other, int(self) * int(other))
        return self._plain(int.__mul__, other)

    def __rmul__(self, other: Any) -> Any:
        if isinstance(other, int):
            return self._derive("*", other, self, int(other) * int(self))
        return self._plain(int.__rmul__, other)

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, int):
            return self._derive("//", self, other, int(self) // int(other))
        return self._plain(int.__floordiv__, other)

    def __rfloordiv__(self, other: Any) -> Any:
        if isinstance(other, int):
            return self._derive("//", other, self, int(other) // int(self))
        return self._plain(int.__rfloordiv__, other)

    def _plain(self, operation: Any, other: Any) -> Any:
        """Arithmetic with something else than an int; tensors and lists take over with the number."""
        if isinstance(other, float):
            self.note_value()
        return operation(int(self), other)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        self.note_value()
        return pow(int(self), other, modulo)

    def __rpow__(self, other: Any, modulo: Any = None) -> Any:
        self.note_value()
        return pow(other, int(self), modulo)

    def __truediv__(self, other: Any) -> Any:
        self.note_value()
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        self.note_value()
        return other / int(self)

    def __float__(self) -> float:
        self.note_value()
        return float(int(self))

    def __eq__(self, other: object) -> bool:
        equal = int(self) == other
        if equal and isinstance(other, TracedInt) and self.uses is not None:
            self.note_read()
            self.uses.fix(Arithmetic("-", self.origin, origin_of(other)), 0)
        return equal

    def __ne__(self, other: object) -> bool:
        return not self == other

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
