"""What a dimension of a parameter means to its layer: filters, input channels, or neither."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dcodp.graph.labels import Components, labels_of

Applied = tuple[str, np.ndarray | None, np.ndarray | None]  # parameter, labels of its output and its input channels


class Roles:
    """`role(name, dim)`: "out" for a layer's filters, "in" for input channels, "vector" for everything else.

    By how a parameter was applied, where its own labels say so; by PyTorch's layout of layers' weights else.
    """

    def __init__(self, tensors: Mapping[str, Tensor], applied: Iterable[Applied], components: Components):
        self.tensors, self.components = tensors, components
        self.seen: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        for name, outer, inner in applied:
            for role, labels in (("out", outer), ("in", inner)):
                if labels is not None:
                    self.seen[name, role].append(labels)

    def role(self, name: str, dim: int) -> str:
        labels = labels_of(self.tensors[name])[dim]
        if labels is not None:
            found = self._seen(name, labels)
            usual = self._usual(name, dim)
            if found is None and usual == "vector":  # its labels became others' where it was put together with them
                found = self._seen(name, labels, self.components.of)
            return found or usual
        return self._usual(name, dim)

    def _seen(self, name: str, labels: np.ndarray, of: np.ndarray | None = None) -> str | None:
        """The role in which these labels were met; with `of`, what they became."""
        known = None
        for role in ("out", "in"):
            for other in self.seen.get((name, role), ()):
                if known is None:
                    known = set((labels if of is None else of[labels]).tolist())
                if not known.isdisjoint((other if of is None else of[other]).tolist()):
                    return role
        return None

    def _usual(self, name: str, dim: int) -> str:
        tensor = self.tensors[name]
        if tensor.dim() < 2 or not name.endswith("weight"):
            return "vector"
        module: Any = getattr(tensor, "_dcodp_module", None)
        outer = 1 if getattr(module, "transposed", False) and getattr(module, "groups", 1) == 1 else 0
        return "out" if dim == outer else "in"
