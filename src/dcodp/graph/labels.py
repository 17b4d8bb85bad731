"""Labels: one integer per coordinate of a tensor dimension, and the record of which labels stand or fall together.

A label names a channel. Two coordinates that carry tied labels are removed together or not at all; a fixed label is
never removed. Label 0 (`FIXED`) stands for coordinates that no parameter owns: padding, inputs, constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils._pytree import tree_flatten

FIXED = 0
MARK = "_dcodp_"  # begins the names of what is attached to tensors
Axes = list[np.ndarray | None]  # per dimension: labels [size] int64, or None where nothing can be removed


class Labels:
    """Hands out labels and collects ties (label ~ label) and fixes (label may not be removed, because …)."""

    def __init__(self) -> None:
        self.count = 1  # label 0 is FIXED
        self._ties: list[np.ndarray] = []  # each [2, n]
        self.fixes: list[tuple[np.ndarray, str]] = []

    def fresh(self, size: int) -> np.ndarray:
        """`size` labels that nothing is tied to yet."""
        labels = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return labels

    def tie(self, one: np.ndarray, other: np.ndarray, reason: str = "") -> None:
        """Coordinates `one[i]` and `other[i]` stand or fall together; a partner that is FIXED fixes the other."""
        differ = one != other
        if not differ.any():
            return
        one, other = one[differ], other[differ]
        for labels, partner in ((one, other), (other, one)):
            self.fix(labels[partner == FIXED], reason or "joined with values that no parameter owns")
        owned = (one != FIXED) & (other != FIXED)
        if owned.any():
            self._ties.append(np.stack([one[owned], other[owned]]))

    def fix(self, labels: np.ndarray | None, reason: str) -> None:
        """None of `labels` may be removed; `reason` is what a person reads."""
        if labels is not None and (labels != FIXED).any():
            self.fixes.append((labels[labels != FIXED], reason))

    def components(self) -> Components:
        """The connected components of all ties so far."""
        rows, columns = np.concatenate(self._ties, axis=1) if self._ties else np.zeros((2, 0), np.int64)
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(self.count, self.count))
        _, component = connected_components(links, directed=False)
        return Components(component.astype(np.int64), self.fixes)


class Components:
    """Labels merged into removable channels: `of[label]` is the component, `fixed[component]` whether it must stay."""

    def __init__(self, of: np.ndarray, fixes: list[tuple[np.ndarray, str]]):
        self.of, self._fixes = of, fixes
        self._cause = np.full(len(of), -1)  # [components] the first fix that holds it, by number
        if fixes:
            numbers = np.repeat(np.arange(len(fixes)), [len(labels) for labels, _ in fixes])
            held = of[np.concatenate([labels for labels, _ in fixes])]
            self._cause[held[::-1]] = numbers[::-1]  # the last assignment wins: the first fix
        self.fixed = self._cause >= 0
        self.fixed[of[FIXED]] = True

    def reason(self, component: int) -> str | None:
        """Why a component may not be removed; None if it may."""
        if self._cause[component] >= 0:
            return self._fixes[self._cause[component]][1]
        return "not a channel" if self.fixed[component] else None

    def removable(self, labels: np.ndarray) -> np.ndarray:
        """labels [n] → bool [n]."""
        return ~self.fixed[self.of[labels]]


def labels_of(tensor: Tensor) -> Axes:
    """The labels on each dimension of a tensor seen during a trace."""
    return getattr(tensor, "_dcodp_axes", None) or [None] * tensor.dim()


def put_labels(tensor: Tensor, axes: Axes) -> None:
    """Attach labels; a dimension of size 1 (or a mismatch left by broadcasting) cannot lose a channel."""
    tensor._dcodp_axes = [  # type: ignore[attr-defined]
        a if a is not None and size > 1 and len(a) == size else None for a, size in zip(axes, tensor.shape, strict=True)
    ]


def spread(labels: np.ndarray, dim: int, shape: torch.Size) -> Tensor:
    """labels [n] laid along `dim` of an int64 tensor of `shape` (no memory: the other strides are 0)."""
    view = [1] * len(shape)
    view[dim] = -1
    return torch.from_numpy(labels).view(view).expand(shape)


def varying_dims(tensor: Tensor) -> list[int]:
    """The dimensions along which the entries of an integer tensor differ."""
    once = tensor[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())]
    return [d for d in range(once.dim()) if once.size(d) > 1 and bool((once != once.narrow(d, 0, 1)).any())]


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors in nested containers; PyTorch's own flattening is asked only for other ones than tuples and lists."""
    found: list[Tensor] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif type(tree) in (tuple, list):
        for part in tree:
            _collect(part, found)
    elif not (tree is None or isinstance(tree, int | float | str | torch.dtype | torch.device)):
        found += [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def operation(func: Any) -> str:
    """An ATen overload's name for people."""
    return func._schema.name.split("::")[-1].strip("_")


def is_zero(tensor: Tensor) -> bool:
    """Whether removed channels hold 0 in this tensor (so that a sum over channels does not miss them)."""
    return getattr(tensor, "_dcodp_zero", False)


def other_dims(axes: Axes, *dims: int) -> bool:
    """Whether channels lie along other dimensions than these (of batches, of rows), where a bias is added as well."""
    return any(labels is not None and d not in [k % len(axes) for k in dims] for d, labels in enumerate(axes))


def result(out: Tensor, axes: Axes, zero: bool = False) -> None:
    put_labels(out, axes)
    out._dcodp_zero = zero  # type: ignore[attr-defined]


def is_labelled(tensor: Tensor) -> bool:
    """Whether any dimension carries channels."""
    return any(axis is not None for axis in labels_of(tensor))


def copy_labels(source: Tensor, target: Tensor) -> None:
    """`target` is another name for the memory of `source`: all that is known about one holds for the other."""
    for key, value in vars(source).items():
        if key.startswith(MARK):
            setattr(target, key, value)


def forget(tensor: Tensor) -> None:
    """Take off what a trace has written on a tensor, which may outlive it in a cache."""
    for key in [key for key in vars(tensor) if key.startswith(MARK)]:
        delattr(tensor, key)
