"""What a net costs at any numbers of channels of its groups, for many choices at once: FLOPs, parameters.

Both are sums of products of numbers that grow linearly with the channels that stay, so that thousands of choices cost
one tensor product. Whatever else maps numbers of channels to a cost (a table of measured milliseconds, see
`dcodp.export`) can take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph


class Cost(Protocol):
    """What a net costs, from how many channels of every group of the graph are kept, in the groups' order."""

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        """kept [N, groups] → cost [N]."""
        ...

    def without(self, kept: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The cost [groups] when of one group alone `steps[g]` channels go from kept [groups]."""
        ...


class SumOfProducts:
    """Σ_t factor_t Π_d (constant_td + Σ_g coefficient_tdg · kept_g)."""

    def __init__(self, factor: Sequence[float], constant: Sequence[Sequence[float]], slopes: Sequence[np.ndarray]):
        """Each term: its factor, its constants (one for each dimension) and coefficients [dimensions, groups]."""
        most, groups = max(map(len, constant), default=0), slopes[0].shape[1] if len(slopes) else 0
        self.factor = np.array(factor, float)
        self.constant, self.slope = np.ones((len(factor), most)), np.zeros((len(factor), most, groups))
        for term, (numbers, slope) in enumerate(zip(constant, slopes, strict=True)):
            self.constant[term, : len(numbers)] = numbers
            self.slope[term, : len(slope)] = slope

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        return np.array([self.factor @ (self.constant + self.slope @ counts).prod(1) for counts in kept])

    def without(self, kept: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The cost [groups] when of one group alone `steps[g]` channels go from kept [groups]."""
        now = self.constant + self.slope @ kept
        return np.einsum("t,tg->g", self.factor, (now[:, :, None] - self.slope * steps).prod(1))


def flops_of(graph: CouplingGraph) -> SumOfProducts:
    """As `graph.flops`: 2 per multiply-accumulate on the example inputs."""
    group_of = np.repeat(np.arange(len(graph.groups)), [g.channels for g in graph.groups])
    factors, constants, slopes = [], [], []
    for contraction in graph.contractions:
        slope = np.zeros((len(contraction.dims), len(graph.groups)))
        for row, count in zip(slope, contraction.dims, strict=True):
            sums = np.bincount(group_of[count.channel], count.coefficient, len(graph.groups))
            row += sums / [g.channels for g in graph.groups]
        factors.append(contraction.factor)
        constants.append([float(count.constant) for count in contraction.dims])
        slopes.append(slope)
    return SumOfProducts(factors, constants, slopes)


def parameters_of(graph: CouplingGraph) -> SumOfProducts:
    """As `graph.parameter_count`: shared ones once, buffers not at all."""
    sizes = parameter_sizes(graph)
    return SumOfProducts([1.0] * len(sizes), [constant for constant, _ in sizes.values()],
                         [slope for _, slope in sizes.values()])  # fmt: skip


def parameter_sizes(graph: CouplingGraph) -> dict[str, tuple[list[float], np.ndarray]]:
    """Each parameter's shape as it follows the kept channels: constants [dims] and slopes [dims, groups]."""
    places: dict[str, list[tuple[int, int, int]]] = {}
    for number, group in enumerate(graph.groups):
        for site in group.sites:
            places.setdefault(site.tensor, []).append((site.dim, number, site.index.shape[1]))
    sizes = {}
    for name in graph.parameters:
        shape = graph.shapes[name]
        constant, slope = [float(size) for size in shape], np.zeros((len(shape), len(graph.groups)))
        for dim, number, width in places.get(name, ()):
            constant[dim] -= width * graph.groups[number].channels
            slope[dim, number] += width
        sizes[name] = (constant, slope)
    return sizes


COSTS: dict[str, Callable[[CouplingGraph], SumOfProducts]] = {"flops": flops_of, "parameters": parameters_of}


def cost_of(graph: CouplingGraph, kind: str, measured: Mapping[str, Cost] | None = None) -> Cost:
    """The cost of that kind: one that was handed in, or counted. Raises InputError where it must be measured first."""
    if measured and kind in measured:
        return measured[kind]
    if kind not in COSTS:
        raise InputError(
            f"target={kind}:… needs what layers cost on your machine; measure it with dcodp.export.latency_cost and "
            f"give costs={{'{kind}': …}}, or use {' or '.join(COSTS)}"
        )
    return COSTS[kind](graph)
