"""The patterns of the paper's Fig. 2 in a coupling graph: residual, ELAN, parallel branches, top-down pyramid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dcodp.graph.coupling import CouplingGraph


@dataclass(frozen=True)
class Pattern:
    """A few layers of a net and what they are an example of."""

    name: str  # file name
    title: str
    layers: tuple[str, ...]  # in order of execution


def find_patterns(graph: CouplingGraph) -> list[Pattern]:
    """One example of each pattern that the net has: the plainest residual, of the others the richest."""
    relations = _Relations(graph)
    candidates = (
        ("residual", "Residual addition", min(relations.residuals(), key=len, default=None)),
        ("elan", "Concatenated stages (ELAN, C2f)", max(relations.stages(), key=relations.richness, default=None)),
        ("repconv", "Parallel branches (RepConv)", max(relations.branches(), key=relations.richness, default=None)),
        ("fpn", "Top-down pyramid (FPN)", next(relations.pyramids(), None)),
    )
    return [Pattern(name, title, tuple(relations.sorted(found))) for name, title, found in candidates if found]


class _Relations:
    """Who comes from whom, and who goes with whom."""

    def __init__(self, graph: CouplingGraph):
        self.parents, self.maps = graph.parents, graph.maps
        self.order = {layer: i for i, layer in enumerate(graph.parents)}
        self.together: dict[str, set[str]] = {}  # layer → the groups of several layers that its filters are in
        for group in graph.groups:
            for layer in group.layers if len(group.layers) > 1 else ():
                self.together.setdefault(layer, set()).add(group.name)

    def sorted(self, layers: set[str]) -> list[str]:
        return sorted(layers, key=self.order.__getitem__)

    def richness(self, layers: set[str]) -> tuple[int, int]:
        """How many layers the last one brings together, and how few boxes show it."""
        return len(self.parents[self.sorted(layers)[-1]]), -len(layers)

    def ancestors(self, layer: str, within: int = 8) -> dict[str, int]:
        """Layers above, with the number of steps up."""
        steps, front = {}, [layer]
        for step in range(1, within + 1):
            front = [p for child in front for p in self.parents[child] if p not in steps]
            steps.update(dict.fromkeys(front, step))
        return steps

    def between(self, top: str, bottom: str) -> set[str]:
        """`top`, `bottom` and every layer on a way from one to the other."""
        above = set(self.ancestors(bottom))
        return {top, bottom} | {x for x in above if top in self.ancestors(x)}

    def coupled(self, one: str, other: str) -> bool:
        return bool(self.together.get(one, set()) & self.together.get(other, set()))

    def residuals(self) -> Iterator[set[str]]:
        """A layer that reads the sum of a layer and of what comes after it."""
        for layer, parents in self.parents.items():
            for end in parents:
                for start in parents:
                    if start in self.ancestors(end) and self.coupled(start, end):
                        found = self.between(start, end) | {layer}
                        if len(found) <= 6:
                            yield found

    def stages(self) -> Iterator[set[str]]:
        """A layer that reads several stages of one chain side by side, each with channels of its own."""
        for layer, parents in self.parents.items():
            for first in parents:
                later = [p for p in parents if first in self.ancestors(p)]
                same_size = {self.maps.get(p) for p in parents} == {self.maps.get(layer)}
                if later and same_size and not any(self.coupled(first, p) for p in later):
                    found = {layer, *parents}.union(*(self.between(first, p) for p in later))
                    if len(found) <= 10:
                        yield found | set(self.parents[first])

    def branches(self) -> Iterator[set[str]]:
        """Layers with the same parents whose outputs are added."""
        for layer, parents in self.parents.items():
            rivals = [p for p in parents if self.parents[p] and self.parents[p] == self.parents[parents[0]]]
            if len(rivals) >= 2 and all(self.coupled(rivals[0], p) for p in rivals):
                found = {layer, *parents, *self.parents[rivals[0]]}
                if len(found) <= 9:
                    yield found

    def pyramids(self) -> Iterator[set[str]]:
        """Layers that read a coarser map, enlarged, beside one of their own size: all of the net together."""
        tops = [layer for layer in self.parents if self._is_topdown(layer)]
        if tops:
            yield {*tops, *self._of(tops)}

    def _is_topdown(self, layer: str) -> bool:
        sizes = {self.maps.get(p, ()) for p in self.parents[layer]}
        sizes = {s for s in sizes if len(s) == 2 and s[0] > 1}
        return len(sizes) > 1 and max(sizes) == self.maps.get(layer)

    def _of(self, layers: Iterable[str]) -> set[str]:
        return {p for layer in layers for p in self.parents[layer]}
