"""A net's cost as the sum over its layers, each at the numbers of channels that are left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dcodp.export.layer_costs import LayerTable
from dcodp.export.layers import Layer
from dcodp.graph import CouplingGraph
from dcodp.graph.cost import Count, stays
from dcodp.pruning.costs import SumOfProducts, parameter_sizes

Dim = tuple[float, np.ndarray]  # constant and slope [groups]: a number of channels as it follows the kept ones


def layers_cost(graph: CouplingGraph, layers: Sequence[tuple[str, Layer]], table: LayerTable) -> SumOfProducts:
    """Milliseconds of all layers, and of contractions that are no layers (attention) at the layers' price per FLOP."""
    terms = _Terms(graph)
    for name, layer in layers:
        inputs, outputs = terms.channels(name, layer)
        constant, per_input, per_output, per_pair = table.milliseconds(layer)
        terms.add(constant, [])
        terms.add(per_input, [inputs])
        terms.add(per_output, [outputs])
        terms.add(per_pair, [inputs, outputs])
    named, dense = {name for name, _ in layers}, stays(graph)
    known = sum(c.flops(dense) for c in graph.contractions if c.layer in named)
    price = terms.dense_total() / known if known else 0.0
    for contraction in graph.contractions:
        if contraction.layer not in named:
            terms.add(contraction.factor * price, [terms.count(dim) for dim in contraction.dims])
    return terms.sum()


def reads_cost(graph: CouplingGraph, layers: Sequence[tuple[str, Layer]]) -> SumOfProducts:
    """How many numbers the layers read: what concatenations, splits and upsampling between them write."""
    terms = _Terms(graph)
    for name, layer in layers:
        terms.add(float(np.prod(layer.size)), [terms.channels(name, layer)[0]])
    return terms.sum()


class _Terms:
    """Products of numbers of channels, collected."""

    def __init__(self, graph: CouplingGraph):
        self.sizes, self.aliases = parameter_sizes(graph), graph.aliases
        self.groups = graph.groups
        self.group_of = np.repeat(np.arange(len(graph.groups)), [g.channels for g in graph.groups])
        self.factors: list[float] = []
        self.dims: list[list[Dim]] = []

    def channels(self, name: str, layer: Layer) -> tuple[Dim, Dim]:
        """Inputs and outputs of a layer; where it works in groups, both follow the outputs."""
        weight = f"{name}.weight"
        first = next((first for first, others in self.aliases.items() if weight in others), weight)
        constant, slope = self.sizes[first]
        rows, columns = ((constant[dim], slope[dim]) for dim in (0, 1))
        if layer.groups > 1:
            width = (layer.inputs if layer.transposed else layer.outputs) / layer.groups
            groups = (rows[0] / width, rows[1] / width)
            per = (layer.inputs / layer.groups, layer.outputs / layer.groups)
            return (groups[0] * per[0], groups[1] * per[0]), (groups[0] * per[1], groups[1] * per[1])
        return (rows, columns) if layer.transposed else (columns, rows)

    def count(self, dim: Count) -> Dim:
        sums = np.bincount(self.group_of[dim.channel], dim.coefficient, len(self.groups))
        return float(dim.constant), sums / [g.channels for g in self.groups]

    def add(self, factor: float, dims: Sequence[Dim]) -> None:
        if factor > 0:
            self.factors.append(factor)
            self.dims.append(list(dims))

    def dense_total(self) -> float:
        dense = np.array([[g.channels for g in self.groups]], float)
        return float(self.sum()(dense)[0])

    def sum(self) -> SumOfProducts:
        none = np.zeros((0, len(self.groups)))
        slopes = [np.array([slope for _, slope in dims]) if dims else none for dims in self.dims]
        return SumOfProducts(self.factors, [[constant for constant, _ in dims] for dims in self.dims], slopes)


def dense_counts(graph: CouplingGraph, kept: Mapping[str, Sequence[int]] | None = None) -> np.ndarray:
    """[groups]: how many channels of each are kept (all of groups that are not named)."""
    return np.array([len(kept[g.name]) if kept and g.name in kept else g.channels for g in graph.groups], float)
