"""The coupling graph: what can be removed from a model, and everything that changes when a channel goes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dcodp.graph.cost import Contraction, Count, Kept, count_flops, count_parameters
from dcodp.graph.expressions import AttributeKey
from dcodp.graph.groups import FrozenLayer, Group, Site
from dcodp.graph.view.explain import as_text

__all__ = ["AttributeSize", "CouplingGraph", "FrozenLayer", "Group", "Site"]


@dataclass(frozen=True, eq=False)
class AttributeSize:
    """A module attribute whose value follows the number of kept channels."""

    key: AttributeKey
    count: Count
    divisor: int = 1


@dataclass(eq=False)
class CouplingGraph:
    """The result of a trace: what can be removed from a model, and what goes with it."""

    groups: list[Group]
    frozen: list[FrozenLayer]
    parents: dict[str, list[str]]  # Algorithm 1: layer → parent layers
    shapes: dict[str, tuple[int, ...]]  # of every parameter and buffer
    aliases: dict[str, list[str]]  # other names of a shared tensor
    attributes: list[AttributeSize] = field(default_factory=list)
    lengths: dict[tuple[str, str], int] = field(default_factory=dict)  # of list attributes among them
    parameters: tuple[str, ...] = ()  # those of `shapes` that are parameters
    contractions: list[Contraction] = field(default_factory=list)  # what the evaluation pass computed
    maps: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # layer → its output's height and width; () if they vary
    notes: list[str] = field(default_factory=list)  # what a person should know about the trace

    def explain(self, scores: Collection[str] | None = None) -> str:
        """A table: every group with its channels, layers, parents and readers; every frozen layer with the reason.

        `scores`: what a criterion said of the groups (or their names); groups that it passed over are named.
        """
        return as_text(self, scores)

    def group_of(self, layer: str) -> list[Group]:
        """The groups that a layer's filters belong to."""
        return [g for g in self.groups if layer in g.layers]

    def flops(self, kept: Kept | None = None) -> int:
        """Floating-point operations (2 per multiply-accumulate) on the example inputs if `kept` channels stay."""
        return count_flops(self, kept)

    def parameter_count(self, kept: Kept | None = None) -> int:
        """Parameters if `kept` channels ({group name: indices}) stay."""
        return count_parameters(self, kept)
