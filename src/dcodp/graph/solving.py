"""Solving size rules: which attribute values make the model's code ask for the sizes that pruned tensors have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dcodp.graph.labels import Components, Labels
from dcodp.graph.sizes import Arithmetic, AttributeKey, FromAttribute, FromDimension, SizeRule, leaves


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
        """None where the quotient would not be linear (a remainder)."""
        values = [self.constant, *self.terms.values(), *self.unknown.values()]
        if divisor == 0 or any(v % divisor for v in values):
            return None
        return Linear(
            self.constant // divisor,
            {k: v // divisor for k, v in self.terms.items()},
            {k: v // divisor for k, v in self.unknown.items()},
        )

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


class _Evaluator:
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
        if left.is_constant and right.is_constant:
            return Linear(left.constant // right.constant)
        return left.divided(right.constant) if right.is_constant else None


def solve(
    rules: list[SizeRule], labels: Labels, dense: dict[AttributeKey, int]
) -> tuple[Components, dict[AttributeKey, Linear]]:
    """Attribute values (as linear forms) that satisfy every rule; ties or fixes labels where no value can.

    `dense` are the attributes' values in the dense net. Returns the final components and the attributes found.
    """
    while True:
        solution = Solution(labels.components(), dense)
        violated = next((rule for rule in _ordered(rules, solution.attributes) if not solution.satisfy(rule)), None)
        if violated is None:
            return solution.components, solution.attributes
        solution.reconcile(violated, labels)  # one at a time: a tie may make other rules hold


def _ordered(rules: list[SizeRule], attributes: dict[AttributeKey, Linear]) -> Iterable[SizeRule]:
    """Rules with at most one unknown attribute first; when only harder ones are left, one of them as it is."""
    pending = list(rules)
    while pending:
        hard = []
        for rule in pending:
            if len(_unknown(rule, attributes)) <= 1:
                yield rule
            else:
                hard.append(rule)
        if len(hard) == len(pending):
            yield hard.pop(0)
        pending = hard


def _unknown(rule: SizeRule, attributes: dict[AttributeKey, Linear]) -> set[AttributeKey]:
    return {x.key for x in leaves(rule.expression) if isinstance(x, FromAttribute) and x.key not in attributes}


class Solution:
    """Attribute values found so far for one partition of the labels into components."""

    def __init__(self, components: Components, dense: dict[AttributeKey, int]):
        self.components, self.dense = components, dense
        self.attributes: dict[AttributeKey, Linear] = {}
        self.defined_by: dict[AttributeKey, np.ndarray | None] = {}  # the dimension that an attribute was solved from

    def satisfy(self, rule: SizeRule) -> bool:
        """Solve a rule for its unknown attribute, or check it; False where it does not hold."""
        unknown = sorted(_unknown(rule, self.attributes), key=str)
        for key in unknown[1:]:  # cannot be told apart: they keep their dense values
            self.attributes[key] = Linear(self.dense[key])
        required = dimension_form(rule.labels, rule.size, self.components)
        found = self._evaluate(rule.expression)
        if unknown and (found is None or unknown[0] in found.unknown):
            key = unknown[0]
            value = None if found is None else self._solved(required, found, key)
            self.attributes[key] = Linear(self.dense[key]) if value is None else value
            self.defined_by[key] = rule.labels if isinstance(rule.expression, FromAttribute) else None
            found = self._evaluate(rule.expression)
        return found is not None and required.combine(found, -1) == Linear()

    def _evaluate(self, expression: Any) -> Linear | None:
        return _Evaluator(self.components, self.attributes)(expression)

    @staticmethod
    def _solved(required: Linear, found: Linear, key: AttributeKey) -> Linear | None:
        return required.combine(Linear(found.constant, found.terms), -1).divided(found.unknown[key])

    def reconcile(self, rule: SizeRule, labels: Labels) -> None:
        """Make a violated rule hold: tie the two dimensions where one sizes the other, else fix both."""
        source, repeats = _sole_dimension(rule.expression)
        if isinstance(rule.expression, FromAttribute):
            source = self.defined_by.get(rule.expression.key)
        if source is not None and rule.labels is not None and len(source) * repeats == len(rule.labels):
            reason = f"sized by a dimension that cannot shrink ({rule.where})"
            labels.tie(np.tile(source, repeats), rule.labels, reason)
            return
        involved = self._involved(rule)
        if not involved:
            raise AssertionError(f"a size rule at {rule.where} contradicts the dense net")
        for component in involved:
            one_label = np.flatnonzero(self.components.of == component)[:1]
            labels.fix(one_label, f"a size in the model's code cannot follow ({rule.where})")

    def _involved(self, rule: SizeRule) -> list[int]:
        """The components whose removal breaks the rule."""
        found = self._evaluate(rule.expression)
        if found is not None:
            return list(dimension_form(rule.labels, rule.size, self.components).combine(found, -1).terms)
        parts = [rule.labels, *(x.labels for x in leaves(rule.expression) if isinstance(x, FromDimension))]
        parts = [p for p in parts if p is not None]
        names = np.unique(self.components.of[np.concatenate(parts)]).tolist() if parts else []
        return [c for c in names if not self.components.fixed[c]]


def _sole_dimension(expression: Any) -> tuple[np.ndarray | None, int]:
    """`dim` → (its labels, 1); `dim * k` or `k * dim` → (its labels, k)."""
    if isinstance(expression, FromDimension | FromAttribute):
        return getattr(expression, "labels", None), 1
    if isinstance(expression, Arithmetic) and expression.operator == "*":
        for dimension, factor in ((expression.left, expression.right), (expression.right, expression.left)):
            if isinstance(dimension, FromDimension) and isinstance(factor, int) and factor > 0:
                return dimension.labels, factor
    return None, 0
