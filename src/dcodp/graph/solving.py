"""Solving size rules: which attribute values make the model's code ask for the sizes that pruned tensors have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dcodp.graph.expressions import (
    ARITHMETIC,
    DECIDES,
    Arithmetic,
    AttributeKey,
    FromAttribute,
    FromDimension,
    SizeRule,
    identity,
    leaves,
)
from dcodp.graph.labels import Components, Labels
from dcodp.graph.linear import Evaluator, Linear, dimension_form


def solve(
    rules: list[SizeRule], labels: Labels, dense: dict[AttributeKey, int]
) -> tuple[Components, dict[AttributeKey, Linear]]:
    """Attribute values (as linear forms) that satisfy every rule; ties or fixes labels where no value can.

    `dense` are the attributes' values in the dense net. Returns the final components and the attributes found.
    """
    while True:
        solution = Solution(labels.components(), dense)
        violated = next((rule for rule in solution.ordered(rules) if not solution.satisfy(rule)), None)
        if violated is None or solution.components.fixed.all():
            return solution.components, solution.attributes
        solution.reconcile(violated, labels)  # one at a time: a tie may make other rules hold


class Solution:
    """Attribute values found so far for one partition of the labels into components."""

    def __init__(self, components: Components, dense: dict[AttributeKey, int]):
        self.components, self.dense = components, dense
        self.attributes: dict[AttributeKey, Linear] = {}
        self.defined_by: dict[AttributeKey, SizeRule] = {}  # the rule that an attribute was solved from

    def ordered(self, rules: list[SizeRule]) -> Iterable[SizeRule]:
        """Rules that can be solved or checked first; when only harder ones are left, one of them as it is."""
        pending = list(rules)
        while pending:
            hard = []
            for rule in pending:
                unknown = self._unknown(rule)
                if not unknown or (len(unknown) == 1 and self._solved(rule, unknown[0]) is not None):
                    yield rule
                else:
                    hard.append(rule)
            if len(hard) == len(pending):
                yield hard.pop(0)
            pending = hard

    def _unknown(self, rule: SizeRule) -> list[AttributeKey]:
        keys = {x.key for x in leaves(rule.expression) if isinstance(x, FromAttribute)}
        return sorted((key for key in keys if key not in self.attributes), key=str)

    def satisfy(self, rule: SizeRule) -> bool:
        """Solve a rule for its unknown attribute, or check it; False where it does not hold."""
        unknown = self._unknown(rule)
        for key in unknown[1:]:  # cannot be told apart: they keep their dense values
            self.attributes[key] = Linear(self.dense[key])
        for key in unknown[:1]:
            value = self._solved(rule, key)
            self.attributes[key] = Linear(self.dense[key]) if value is None else value
            self.defined_by[key] = rule
        found = self._evaluate(rule.expression)
        return found is not None and self._required(rule).combine(found, -1) == Linear()

    def _required(self, rule: SizeRule) -> Linear:
        return dimension_form(rule.labels, rule.size, self.components)

    def _evaluate(self, expression: Any) -> Linear | None:
        return Evaluator(self.components, self.attributes)(expression)

    def _solved(self, rule: SizeRule, key: AttributeKey) -> Linear | None:
        return self._inverted(rule.expression, self._required(rule), key)

    def _inverted(self, expression: Any, required: Linear, key: AttributeKey) -> Linear | None:
        """The value of the attribute `key` for which `expression` is what is required; None if it is not linear."""
        if isinstance(expression, FromAttribute):
            return required
        sides = [any(getattr(x, "key", None) == key for x in leaves(s)) for s in (expression.left, expression.right)]
        if all(sides):
            found = self._evaluate(expression)
            if found is None or key not in found.unknown:
                return None
            return required.combine(Linear(found.constant, found.terms), -1).divided(found.unknown[key])
        known = self._evaluate(expression.right if sides[0] else expression.left)
        if known is None:
            return None
        wanted = self._wanted(expression, required, known, sides[0])
        return wanted and self._inverted(expression.left if sides[0] else expression.right, wanted, key)

    def _wanted(self, expression: Arithmetic, required: Linear, known: Linear, left: bool) -> Linear | None:
        """What the unknown side of an expression must be (`left`: it is the left side)."""
        if expression.operator == "+":
            return required.combine(known, -1)
        if expression.operator == "-":
            return required.combine(known, 1) if left else known.combine(required, -1)
        if expression.operator == "*":
            return required.divided(known.constant) if known.is_constant else None
        if expression.operator == "//" and left and known.is_constant:  # the remainder stays what it is
            divisor = known.constant
            remainder = self._dense(expression.left) - divisor * self._dense(expression)
            return required.times(divisor).combine(Linear(remainder), 1)
        return None

    def _dense(self, expression: Any) -> int:
        """The number in the dense net."""
        if isinstance(expression, Arithmetic):
            return ARITHMETIC[expression.operator](self._dense(expression.left), self._dense(expression.right))
        if isinstance(expression, FromDimension):
            return len(expression.labels)
        return self.dense[expression.key] if isinstance(expression, FromAttribute) else expression

    def reconcile(self, rule: SizeRule, labels: Labels) -> None:
        """Make a violated rule hold: tie the two dimensions where one sizes the other, else fix both."""
        of = self.components.of
        apart = [(one, other) for one, other in self._partners(rule) if (of[one] != of[other]).any()]
        for one, other in apart:
            labels.tie(one, other, f"sized by a dimension that cannot shrink ({rule.where})")
        if apart:
            return
        what = DECIDES if rule.value else "a size in the model's code cannot follow"
        for component in self._involved(rule):
            one_label = np.flatnonzero(self.components.of == component)[:1]
            labels.fix(one_label, f"{what} ({rule.where})")

    def _partners(self, rule: SizeRule) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Pairs of label arrays whose coordinates must stand or fall together for the rule to hold."""
        yield from self._heads(rule)
        if rule.labels is None:
            return
        keys = [x.key for x in leaves(rule.expression) if isinstance(x, FromAttribute)]
        for other in [self.defined_by[key] for key in keys if key in self.defined_by]:
            same = identity(other.expression) == identity(rule.expression)  # one expression sizes two dimensions
            if same and other.labels is not None and len(other.labels) == len(rule.labels):
                yield other.labels, rule.labels
                return
        source, repeats = _sole_dimension(rule.expression)
        if source is not None and len(source) * repeats == len(rule.labels):
            yield np.tile(source, repeats), rule.labels
            return
        pieces = self._pieces(rule)
        for piece in pieces[1:]:
            yield pieces[0], piece

    def _heads(self, rule: SizeRule) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """`dimension // attribute` whose value must stay (the size of a head): the dimension goes head by head."""
        expression = rule.expression
        if rule.labels is not None or not isinstance(expression, Arithmetic) or expression.operator != "//":
            return
        whole, counted = self._labels_of(expression.left), self._labels_of(expression.right)
        if whole is not None and counted is not None and len(whole) == rule.size * len(counted):
            yield np.repeat(counted, rule.size), whole

    def _pieces(self, rule: SizeRule) -> np.ndarray | list[np.ndarray]:
        """[pieces, size] for a dimension that is cut into equal pieces, `dimension // pieces` channels each."""
        expression = rule.expression
        if not (isinstance(expression, Arithmetic) and expression.operator == "//" and rule.labels is not None):
            return []
        whole, count = self._labels_of(expression.left), expression.right
        if whole is None or not isinstance(count, int) or len(whole) != count * len(rule.labels):
            return []
        pieces = whole.reshape(count, -1)
        return pieces if (pieces == rule.labels).all(1).any() else []

    def _labels_of(self, expression: Any) -> np.ndarray | None:
        """The dimension that an expression is the size of."""
        if isinstance(expression, FromDimension):
            return expression.labels
        rule = self.defined_by.get(expression.key) if isinstance(expression, FromAttribute) else None
        return rule.labels if rule is not None and isinstance(rule.expression, FromAttribute) else None

    def _involved(self, rule: SizeRule) -> list[int]:
        """The components whose removal breaks the rule; all that it reads if that cannot be told."""
        found = self._evaluate(rule.expression)
        if found is not None:
            breaking = list(self._required(rule).combine(found, -1).terms)
            if breaking:
                return breaking
        parts = [rule.labels, *(x.labels for x in leaves(rule.expression) if isinstance(x, FromDimension))]
        parts = [p for p in parts if p is not None]
        names = set(np.unique(self.components.of[np.concatenate(parts)]).tolist() if parts else [])
        for leaf in leaves(rule.expression):
            if isinstance(leaf, FromAttribute):
                names.update(self.attributes.get(leaf.key, Linear()).terms)
        free = [c for c in sorted(names) if not self.components.fixed[c]]
        return free or np.flatnonzero(~self.components.fixed).tolist()  # nothing else makes sure that it holds


def _sole_dimension(expression: Any) -> tuple[np.ndarray | None, int]:
    """`dim` → (its labels, 1); `dim * k` or `k * dim` → (its labels, k)."""
    if isinstance(expression, FromDimension):
        return expression.labels, 1
    if isinstance(expression, Arithmetic) and expression.operator == "*":
        for dimension, factor in ((expression.left, expression.right), (expression.right, expression.left)):
            if isinstance(dimension, FromDimension) and isinstance(factor, int) and factor > 0:
                return dimension.labels, factor
    return None, 0
