"""Which channels of a model can be removed, and what goes with each: `trace` a model into a `CouplingGraph`."""

from dcodp.graph.coupling import CouplingGraph, FrozenLayer, Group, Site
from dcodp.graph.tracing import trace

__all__ = ["CouplingGraph", "FrozenLayer", "Group", "Site", "trace"]
