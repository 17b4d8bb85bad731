"""Algorithm 1 of the paper: for every layer its parent layers, by depth-first search over the recorded operations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Operation:
    """One recorded operation: the operations its inputs came from, and the layers whose weights it applies.

    Several where a weight is put together from theirs.
    """

    inputs: tuple[int, ...]
    layers: tuple[str, ...]


class OperationGraph:
    """All operations of one forward pass, in order."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.maps: dict[str, tuple[int, ...]] = {}  # layer → height and width of its output; () if they vary

    def record(self, inputs: list[Tensor], outputs: list[Tensor], layers: tuple[str, ...]) -> None:
        sources = {getattr(t, "_dcodp_operation", None) for t in inputs} - {None}
        self.operations.append(Operation(tuple(sorted(sources)), layers))  # type: ignore[arg-type]
        for layer in layers if outputs else ():
            size = tuple(outputs[0].shape[2:])
            self.maps[layer] = size if self.maps.get(layer, size) == size else ()
        for tensor in outputs:
            tensor._dcodp_operation = len(self.operations) - 1  # type: ignore[attr-defined]

    @property
    def layers(self) -> list[str]:
        """Layers in the order in which they first ran."""
        return list(dict.fromkeys(layer for o in self.operations for layer in o.layers))

    def feeding_layers(self) -> set[int]:
        """The operations whose results some layer works on further, directly or not."""
        feeding: set[int] = set()
        for number in range(len(self.operations) - 1, -1, -1):
            operation = self.operations[number]
            if operation.layers or number in feeding:
                feeding.update(operation.inputs)
        return feeding

    def parents(self) -> dict[str, list[str]]:
        """layer → the nearest layers its input comes from (Algorithm 1); of all its uses, if it is applied twice."""
        found: dict[str, dict[str, None]] = {layer: {} for layer in self.layers}
        for operation in self.operations:
            for layer in operation.layers:
                found[layer].update(dict.fromkeys(self._search(operation)))
        return {layer: list(parents) for layer, parents in found.items()}

    def _search(self, start: Operation) -> list[str]:
        """Depth-first from an operation towards the input, stopping at the first layer on every path."""
        parents: list[str] = []
        seen: set[int] = set()
        stack = list(reversed(start.inputs))
        while stack:
            number = stack.pop()
            if number in seen:
                continue
            seen.add(number)
            operation = self.operations[number]
            if operation.layers:
                parents.extend(operation.layers)
            else:
                stack.extend(reversed(operation.inputs))
        return parents
