"""Where a size came from: numbers that remember the tensor dimension or module attribute they were read from.

`x.view(b, self.heads, c // self.heads, n)` fixes sizes in Python. During a trace, module attributes and tensor shapes
are `TracedInt`s, so that each size that a model passes to a reshaping operation arrives as an expression. Every such
use is a `SizeRule`: expression = number of channels left along a dimension. `solve` finds the attribute values that
make all rules hold whatever channels are removed; where none can, it ties or fixes the channels involved.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dcodp.graph.expressions import ARITHMETIC, Arithmetic, FromDimension, identity
from dcodp.graph.lookups import looks_up


@dataclass(eq=False)
class Uses:
    """What the model's code did with the numbers it was given."""

    read: list[Any] = field(default_factory=list)  # origins that it looked at
    fixed: list[tuple[Any, int, str]] = field(default_factory=list)  # origins whose number must stay, and where
    modules: list[str] = field(default_factory=list)  # the modules whose forward is running, innermost last
    plain: bool = False  # sizes are plain ints, and the dimensions that they were read from stay
    made: list[Any] = field(default_factory=list)  # the numbers that stand for sizes, until the trace has ended
    over: bool = False  # the trace has ended: numbers that outlived it (in a cache, say) are plain from now on

    def fix(self, origin: Any, value: int) -> None:
        self.fixed.append((origin, value, (self.modules[-1] if self.modules else "") or "the model"))


class _SeenAs(int, torch.SymInt):
    """What a `TracedInt` looks like: an int to the model, and to PyTorch's parsers a size that stands for an int."""


class TracedInt:
    """Stands for an int and remembers its origin through + - * // %.

    It is no int for the interpreter, so that whoever wants to know the number has to ask: every other operation
    (comparison, text, list index, range, float, …) gives what an int would give and notes that the number decided
    something. Then it must stay, as must the difference of two numbers that were compared.
    `isinstance(x, int)` says yes, since models ask for that.
    """

    __slots__ = ("number", "origin", "uses")
    __class__ = property(lambda self: int if self.uses.over else _SeenAs)  # type: ignore[assignment]

    def __init__(self, number: int, origin: Any, uses: Uses):
        self.number, self.origin, self.uses = number, origin, uses
        uses.made.append(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """numpy's numbers leave integer arithmetic to us; whatever else numpy computes tells the number."""
        exact = {np.add: operator.add, np.subtract: operator.sub, np.multiply: operator.mul,
                 np.floor_divide: operator.floordiv, np.remainder: operator.mod}.get(ufunc)  # fmt: skip
        if exact is not None and method == "__call__" and all(isinstance(i, int | np.integer) for i in inputs):
            left, right = (int(i) if isinstance(i, np.integer) else i for i in inputs)
            return exact(left, right)
        return getattr(ufunc, method)(*(i.note_value() if type(i) is TracedInt else i for i in inputs), **options)

    def note_read(self) -> None:
        self.uses.read.append(self.origin)

    def note_value(self) -> int:
        """The number itself matters, not only as a size."""
        if not self.uses.over:
            self.note_read()
            self.uses.fix(self.origin, self.number)
        return self.number

    def _derive(self, name: str, left: Any, right: Any) -> Any:
        """The result of integer arithmetic, which remembers where it came from."""
        number = ARITHMETIC[name](plain(left), plain(right))
        if self.uses.over:
            return number
        self.note_read()
        return TracedInt(number, Arithmetic(name, origin_of(left), origin_of(right)), self.uses)

    def _decided(self, smallest: int, largest: int) -> bool:
        """Whether a comparison comes out alike for every number of channels that can be left.

        `smallest` and `largest` are the results for 1 channel and for all of them.
        """
        return not isinstance(self.origin, Arithmetic) and self.number >= 1 and smallest == largest

    def _compare(self, compare: Callable[[Any, Any], bool], other: Any) -> bool:
        result = bool(compare(self.number, plain(other)))
        if self.uses.over:
            return result
        self.note_read()
        if isinstance(other, TracedInt) and not other.uses.over:
            self.uses.fix(Arithmetic("-", self.origin, other.origin), self.number - other.number)
        elif compare in (operator.eq, operator.ne):
            if other in range(1, self.number + 1) or isinstance(self.origin, Arithmetic):
                self.uses.fix(self.origin, self.number)
        elif not self._decided(compare(1, other), compare(self.number, other)):
            self.uses.fix(self.origin, self.number)
        return result

    def __eq__(self, other: object) -> Any:
        return self._compare(operator.eq, other) if isinstance(other, int | float) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return self._compare(operator.ne, other) if isinstance(other, int | float) else NotImplemented

    def __lt__(self, other: Any) -> Any:
        return self._compare(operator.lt, other) if isinstance(other, int | float) else NotImplemented

    def __le__(self, other: Any) -> Any:
        return self._compare(operator.le, other) if isinstance(other, int | float) else NotImplemented

    def __gt__(self, other: Any) -> Any:
        return self._compare(operator.gt, other) if isinstance(other, int | float) else NotImplemented

    def __ge__(self, other: Any) -> Any:
        return self._compare(operator.ge, other) if isinstance(other, int | float) else NotImplemented

    def __bool__(self) -> bool:
        return self._compare(operator.ne, 0)

    def __hash__(self) -> int:
        """An int's where it is looked up in a dictionary or set, which decides by the number; else one of its own.

        A cache of results (functools.lru_cache) then never gives a trace the numbers of an earlier call.
        """
        if self.uses.over or looks_up(sys._getframe(1)):
            return hash(self.note_value())
        return hash((id(self.uses), self.number, identity(self.origin)))

    def __pos__(self) -> Any:
        return self

    __floor__ = __ceil__ = __trunc__ = __pos__

    def __neg__(self) -> Any:
        return self._derive("-", 0, self)

    def __round__(self, digits: int | None = None) -> Any:
        return self if digits is None or digits >= 0 else round(self.note_value(), digits)

    def __abs__(self) -> Any:
        return self if isinstance(self.origin, FromDimension) else abs(self.note_value())

    def __int__(self) -> int:
        return self.note_value()

    def __index__(self) -> int:
        return self.note_value()

    def __float__(self) -> float:
        return float(self.note_value())

    def __complex__(self) -> complex:
        return complex(self.note_value())

    def __str__(self) -> str:
        return str(self.note_value())

    def __repr__(self) -> str:
        return repr(self.note_value())

    def __format__(self, spec: str) -> str:
        return format(self.note_value(), spec)

    def __getattr__(self, name: str) -> Any:
        """What else an int has: bit_length, real, …"""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.note_value(), name)

    def __reduce__(self) -> Any:
        return int, (self.number,)

    def __deepcopy__(self, memo: Any) -> int:
        return self.number


VALUES: dict[str, Callable[[Any, Any], Any]] = {  # results that tell the number
    "truediv": operator.truediv,
    "pow": operator.pow,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "divmod": divmod,
}


def _is_container(value: Any) -> bool:
    """Tensors see to the number themselves, lists and texts are repeated."""
    return hasattr(value, "__torch_function__") or isinstance(value, list | tuple | str | bytes)


def _exact(name: str, swapped: bool) -> Callable[[TracedInt, Any], Any]:
    def method(self: TracedInt, other: Any) -> Any:
        if self.uses.over:
            return ARITHMETIC[name](other, self.number) if swapped else ARITHMETIC[name](self.number, other)
        if isinstance(other, int):
            return self._derive(name, other, self) if swapped else self._derive(name, self, other)
        if _is_container(other):
            return NotImplemented
        number = self.note_value()
        return ARITHMETIC[name](other, number) if swapped else ARITHMETIC[name](number, other)

    return method


def _valued(name: str, swapped: bool) -> Callable[..., Any]:
    def method(self: TracedInt, other: Any, *more: Any) -> Any:
        if _is_container(other) and not self.uses.over:
            return NotImplemented
        number, other = self.note_value(), other.note_value() if isinstance(other, TracedInt) else other
        if more:
            return pow(number, other, *more)
        return VALUES[name](other, number) if swapped else VALUES[name](number, other)

    return method


for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("floordiv", "//"), ("mod", "%")):
    setattr(TracedInt, f"__{_name}__", _exact(_sign, False))
    setattr(TracedInt, f"__r{_name}__", _exact(_sign, True))
for _name in VALUES:
    setattr(TracedInt, f"__{_name}__", _valued(_name, False))
    setattr(TracedInt, f"__r{_name}__", _valued(_name, True))


class TracedSize(tuple[Any, ...]):
    """A shape with `TracedInt`s, which torch.Size would turn into plain ints."""

    __slots__ = ()

    def numel(self) -> Any:
        total: Any = 1
        for size in self:
            total = total * size
        return total

    def __getitem__(self, item: Any) -> Any:
        found = super().__getitem__(item)
        return TracedSize(found) if isinstance(item, slice) else found

    def __add__(self, other: Any) -> Any:
        return TracedSize(super().__add__(tuple(other)))


def plain(value: Any) -> Any:
    """The int that a `TracedInt` stands for, without noting that it was asked; anything else as it is."""
    return value.number if type(value) is TracedInt else value


def origin_of(value: Any) -> Any:
    """The expression behind a number: its origin, or the number itself."""
    return value.origin if type(value) is TracedInt and not value.uses.over else int(plain(value))


def traced_in(tree: Any) -> Iterator[TracedInt]:
    """All `TracedInt`s in nested lists, tuples, dictionaries and slices."""
    if type(tree) is TracedInt:
        yield tree
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from traced_in(part)
    elif isinstance(tree, dict):
        yield from traced_in(list(tree.values()))
    elif isinstance(tree, slice):
        yield from traced_in((tree.start, tree.stop, tree.step))


def without_origins(tree: Any) -> Any:
    """The same with plain ints."""
    if type(tree) is TracedInt:
        return tree.number
    if type(tree) in (list, tuple):
        return type(tree)(without_origins(part) for part in tree)
    if type(tree) is TracedSize:
        return tuple(without_origins(part) for part in tree)
    if type(tree) is dict:
        return {key: without_origins(part) for key, part in tree.items()}
    if isinstance(tree, slice):
        return slice(*without_origins((tree.start, tree.stop, tree.step)))
    return tree
