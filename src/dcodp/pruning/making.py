"""From the kept channels of every group to the plan: which coordinates of which tensors stay, and which attributes
follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dcodp.graph import CouplingGraph
from dcodp.graph.cost import stays
from dcodp.pruning.plan import PrunePlan


def make_plan(
    graph: CouplingGraph, keep: Mapping[str, Sequence[int]], settings: Mapping[str, Any] | None = None
) -> PrunePlan:
    """The plan that keeps the given channels of every group (all channels of groups that are not named)."""
    kept = {g.name: list(map(int, keep.get(g.name, range(g.channels)))) for g in graph.groups}
    removed = _removed_coordinates(graph, kept)
    tensors: dict[str, dict[int, list[int]]] = {}
    for (name, dim), coordinates in removed.items():
        left = np.setdiff1d(np.arange(graph.shapes[name][dim]), coordinates).tolist()
        for alias in (name, *graph.aliases.get(name, ())):
            tensors.setdefault(alias, {})[dim] = left
    first_name = {alias: name for name, others in graph.aliases.items() for alias in others}
    return PrunePlan(
        keep=tensors,
        shapes={name: list(graph.shapes[first_name.get(name, name)]) for name in tensors},
        attributes=_attribute_values(graph, kept),
        groups=kept,
        channels={g.name: g.channels for g in graph.groups},
        settings=dict(settings or {}),
    )


def _removed_coordinates(graph: CouplingGraph, kept: Mapping[str, list[int]]) -> dict[tuple[str, int], np.ndarray]:
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for group in graph.groups:
        gone = np.setdiff1d(np.arange(group.channels), kept[group.name])
        for site in group.sites if len(gone) else ():
            parts.setdefault((site.tensor, site.dim), []).append(site.index[gone].ravel())
    return {key: np.concatenate(value) for key, value in parts.items()}


def _attribute_values(graph: CouplingGraph, kept: Mapping[str, list[int]]) -> dict[str, dict[str, Any]]:
    """New values of the attributes that follow the kept channels."""
    mask = stays(graph, kept)
    values: dict[str, dict[str, Any]] = {}
    for size in graph.attributes:
        if mask[size.count.channel].all():
            continue
        module, attribute, position = size.key
        value = size.count.left(mask) // size.divisor
        if position is None:
            values.setdefault(module, {})[attribute] = value
        else:
            entries = values.setdefault(module, {}).setdefault(attribute, [None] * graph.lengths[module, attribute])
            entries[position] = value
    return values
