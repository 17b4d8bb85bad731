"""The proof for one net of the list: traced, pruned at random, compared with the dense net without the channels."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import dcodp
from dcodp.graph import CouplingGraph
from dcodp.pruning.plan import PrunePlan
from dcodp.testing import enliven, relative_error, rounding_noise, run, zeroed
from zoo.entry import Architecture
from zoo.nets import ARCHITECTURES

RATIOS = (0.3, 0.5)
VISIBLE = 1e-6  # what a mistake must change at least, or the comparison proves nothing
TRIED = 4  # neighbouring layers


def check(name: str, size: int | None = None, ratios: Sequence[float] = RATIOS) -> dict[str, Any]:
    """Trace, prune at random and compare with the dense net without the channels, in float64 with live signals."""
    with _double_by_default():
        return _checked(ARCHITECTURES[name], size or ARCHITECTURES[name].size, ratios)


@contextmanager
def _double_by_default() -> Iterator[None]:
    """For what a net makes of nothing while it runs."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _checked(architecture: Architecture, size: int, ratios: Sequence[float]) -> dict[str, Any]:
    torch.manual_seed(0)
    inputs = architecture.inputs(size)
    model = enliven(architecture.build().double().eval(), inputs)
    start = time.perf_counter()
    graph = dcodp.trace(model, inputs, outputs=architecture.outputs)
    seconds = time.perf_counter() - start
    return {
        "name": architecture.name,
        "family": architecture.family,
        "size": size,
        "parameters": graph.parameter_count(),
        "trace_seconds": round(seconds, 3),
        "groups": len(graph.groups),
        "channels": sum(g.channels for g in graph.groups),
        "frozen": [vars(frozen) for frozen in graph.frozen],
        "notes": graph.notes,
        "ratios": {str(ratio): prove(architecture, model, graph, inputs, ratio) for ratio in ratios},
    }


def prove(
    architecture: Architecture, model: nn.Module, graph: CouplingGraph, inputs: tuple[Any, ...], ratio: float
) -> dict[str, float]:
    """Shares removed, and the relative differences: pruned against zeroed, what rounding alone does to the latter,
    dense against pruned, swapped channels."""
    generator = torch.Generator().manual_seed(1)
    scores = {g.name: torch.rand(g.channels, generator=generator) for g in graph.groups}
    plan = dcodp.select(graph, scores, ratio=ratio)
    enliven(model, inputs, without=plan)
    small = dcodp.prune(model, plan)

    heads = {*architecture.heads, *(layer for layer in last_layers(graph) if not graph.group_of(layer))}

    def computed(network: nn.Module) -> list[Tensor]:
        return run(network, inputs, architecture.compared, sorted(heads))

    dense = zeroed(model, plan)
    expected, found = computed(dense), computed(small)
    return {
        "parameters_removed": 1 - graph.parameter_count(plan.groups) / graph.parameter_count(),
        "flops_removed": 1 - graph.flops(plan.groups) / graph.flops(),
        "error": difference(expected, found),
        "rounding": max(rounding_noise(dense, expected, inputs, architecture.compared, sorted(heads)), default=0.0),
        "changes": difference(computed(model), found),
        "swapped": caught(small, graph, plan, lambda wrong: difference(expected, computed(wrong))),
    }


def last_layers(graph: CouplingGraph) -> list[str]:
    """The layers that no other layer works on further, among those that the evaluation pass runs."""
    parents = {parent for found in graph.parents.values() for parent in found}
    return [layer for layer in ran(graph) if layer not in parents]


def ran(graph: CouplingGraph) -> list[str]:
    """The layers that the evaluation pass runs (training may run more)."""
    applied = {c.layer for c in graph.contractions}
    return [layer for layer in graph.parents if layer in applied]


def difference(want: Sequence[Tensor], have: Sequence[Tensor]) -> float:
    """The largest relative difference; infinite where shapes differ (another number of detections, say)."""
    if [t.shape for t in want] != [t.shape for t in have]:
        return float("inf")
    return max(relative_error(a, b) for a, b in zip(want, have, strict=True))


def caught(small: nn.Module, graph: CouplingGraph, plan: PrunePlan, effect: Callable[[nn.Module], float]) -> float:
    """The smallest effect of exchanging two input channels of one layer: tried early, in the middle and late.

    Where a layer's result is thrown away by the net (samples outside the image, queries that are not the best), the
    next ones are tried.
    """
    running = ran(graph)
    weights = [
        site.tensor
        for group in graph.groups
        for site in group.sites
        if site.role == "in"
        and site.dim == 1
        and site.tensor.removesuffix(".weight") in running
        and len(plan.keep.get(site.tensor, {}).get(1, ())) > 1
    ]
    starts = [int(share * (len(weights) - 1)) for share in (0.1, 0.5, 0.9) if weights]
    return min((_visible_effect(small, weights[i : i + TRIED], effect) for i in starts), default=float("inf"))


def _visible_effect(small: nn.Module, names: Sequence[str], effect: Callable[[nn.Module], float]) -> float:
    found = 0.0
    for name in names:
        found = max(found, _first_effect(small, name, effect))
        if found >= VISIBLE:
            break
    return found


def _first_effect(small: nn.Module, name: str, effect: Callable[[nn.Module], float]) -> float:
    """Of one pair; of another where both channels happen to be silent (behind a ReLU, say)."""
    found = 0.0
    for first in range(0, min(8, small.get_parameter(name).shape[1] - 1), 2):
        twin = copy.deepcopy(small)
        weight = twin.get_parameter(name)
        order = torch.arange(weight.shape[1])
        order[first], order[first + 1] = first + 1, first
        with torch.no_grad():
            weight.copy_(weight[:, order].clone())
        found = max(found, effect(twin))
        if found >= VISIBLE:
            break
    return found
