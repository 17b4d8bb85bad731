"""Numbers of channels as linear forms: how a size in the model's code follows what is kept of each component."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dcodp.graph.expressions import AttributeKey, FromAttribute, FromDimension
from dcodp.graph.labels import Components


@dataclass
class Linear:
    """A number that depends linearly on how many channels each component keeps: Σ terms[c]·kept(c) + constant.

    `unknown` holds the coefficients of attributes whose value is still to be found.
    """

    constant: int = 0
    terms: dict[int, int] = field(default_factory=dict)
    unknown: dict[AttributeKey, int] = field(default_factory=dict)

    def combine(self, other: Linear, sign: int) -> Linear:
        return Linear(
            self.constant + sign * other.constant,
            _sum(self.terms, other.terms, sign),
            _sum(self.unknown, other.unknown, sign),
        )

    def times(self, factor: int) -> Linear:
        return Linear(
            self.constant * factor,
            {k: v * factor for k, v in self.terms.items()},
            {k: v * factor for k, v in self.unknown.items()},
        )

    def divided(self, divisor: int) -> Linear | None:
        """Rounded down, like Python's //; None where that would not be linear."""
        if divisor == 0 or any(v % divisor for v in [*self.terms.values(), *self.unknown.values()]):
            return None
        return Linear(
            self.constant // divisor,
            {k: v // divisor for k, v in self.terms.items()},
            {k: v // divisor for k, v in self.unknown.items()},
        )

    def ratio(self, other: Linear) -> int | None:
        """How many times `other` this is, whatever channels are left; None where that is no one number."""
        times = self.constant // other.constant if other.constant else 0
        for key, value in other.terms.items():
            times = self.terms.get(key, 0) // value
        return times if times > 0 and other.times(times) == self else None

    @property
    def is_constant(self) -> bool:
        return not self.terms and not self.unknown


def _sum(one: dict[Any, int], other: dict[Any, int], sign: int) -> dict[Any, int]:
    total = dict(one)
    for key, value in other.items():
        total[key] = total.get(key, 0) + sign * value
    return {key: value for key, value in total.items() if value}


def dimension_form(labels: np.ndarray | None, size: int, components: Components) -> Linear:
    """The number of coordinates left along a dimension, as a linear form over components."""
    if labels is None:
        return Linear(size)
    removable = components.removable(labels)
    names, counts = np.unique(components.of[labels[removable]], return_counts=True)
    return Linear(int((~removable).sum()), dict(zip(names.tolist(), counts.tolist(), strict=True)))


class Evaluator:
    """Expressions → linear forms, with what is known of the attributes so far."""

    def __init__(self, components: Components, attributes: dict[AttributeKey, Linear]):
        self.components, self.attributes = components, attributes

    def __call__(self, expression: Any) -> Linear | None:
        """None where the expression is not linear."""
        if isinstance(expression, int):
            return Linear(expression)
        if isinstance(expression, FromDimension):
            return dimension_form(expression.labels, len(expression.labels), self.components)
        if isinstance(expression, FromAttribute):
            known = self.attributes.get(expression.key)
            return Linear(unknown={expression.key: 1}) if known is None else known
        left, right = self(expression.left), self(expression.right)
        return None if left is None or right is None else self._operate(expression.operator, left, right)

    def _operate(self, operator: str, left: Linear, right: Linear) -> Linear | None:
        if operator in "+-":
            return left.combine(right, 1 if operator == "+" else -1)
        if operator == "*":
            if left.is_constant:
                left, right = right, left
            return left.times(right.constant) if right.is_constant else None
        if right == Linear():
            return None
        times = left.ratio(right)
        if times is not None:
            return Linear(times if operator == "//" else 0)
        divided = left.divided(right.constant) if right.is_constant else None
        if divided is None or operator == "//":
            return divided
        return Linear(left.constant % right.constant)
