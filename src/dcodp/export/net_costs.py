"""What a whole net costs in milliseconds: its layers as timed one by one, brought in line with a few whole nets.

In a net other things take time, too: what is copied between the layers, and what no pruning changes. So the layers' sum
is scaled, and a price per number that layers read and a constant are added, such that whole nets of a few widths come
out as they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import nnls
from torch import Tensor, nn

from dcodp.export.formats.as_onnx import onnx_bytes
from dcodp.export.formats.exportable import Outputs, exportable
from dcodp.export.latency import Latency, side_by_side
from dcodp.export.layer_costs import BLOCKS, measured_table
from dcodp.export.layer_sums import dense_counts, layers_cost, reads_cost
from dcodp.export.layers import layers_of
from dcodp.export.runtimes import Machine, Runner, open_onnx
from dcodp.extras import told_if_missing
from dcodp.graph import CouplingGraph
from dcodp.pruning import PrunePlan, make_plan, prune
from dcodp.pruning.allocation import local_counts
from dcodp.pruning.costs import SumOfProducts

WIDTHS = (0.75, 0.5, 0.25)  # shares of all groups' channels in the nets that are measured whole, beside the dense one
RUNS = 20


@dataclass(frozen=True)
class LatencyCost:
    """A `Cost`: scale · layers + per_read · reads + constant, in milliseconds."""

    layers: SumOfProducts
    reads: SumOfProducts
    scale: float = 1.0
    per_read: float = 0.0
    constant: float = 0.0

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        return self.scale * self.layers(kept) + self.per_read * self.reads(kept) + self.constant

    def without(self, kept: np.ndarray, steps: np.ndarray) -> np.ndarray:
        layers, reads = self.layers.without(kept, steps), self.reads.without(kept, steps)
        return self.scale * layers + self.per_read * reads + self.constant

    def calibrated(self, kept: np.ndarray, milliseconds: Sequence[float]) -> LatencyCost:
        """The same with the factors, none negative, by which whole nets with `kept` [N, groups] channels come nearest
        in relative error."""
        columns = np.column_stack([self.layers(kept), self.reads(kept), np.ones(len(kept))])
        size, ms = columns.max(0), np.array(milliseconds, float)
        scale, per_read, constant = nnls(columns / size / ms[:, None], np.ones(len(ms)))[0] / size
        return LatencyCost(self.layers, self.reads, float(scale), float(per_read), float(constant))


def latency_cost(
    network: nn.Module,
    graph: CouplingGraph,
    example: Tensor,
    outputs: Outputs,
    machine: Machine,
    table: Path | None = None,
    widths: Sequence[float] = WIDTHS,
) -> LatencyCost:
    """The cost to give `select(…, target="latency:0.5", costs={"latency": …})`: for this image size, in this runtime.

    `table`: a JSON file with the layers' times, which is read and completed; it may come from another machine, and then
    `widths=()` leaves out the whole nets, which would be measured here.
    """
    layers = layers_of(network, example)
    measured = measured_table([layer for _, layer in layers], machine, table)
    cost = LatencyCost(layers_cost(graph, layers, measured), reads_cost(graph, layers))
    if not widths:
        return cost
    plans = [None, *(narrowed(graph, width) for width in widths)]
    times = net_times(network, plans, example, outputs, machine)
    kept = np.array([dense_counts(graph, plan.groups if plan else None) for plan in plans])
    return cost.calibrated(kept, [time.median_ms for time in times])


def narrowed(graph: CouplingGraph, width: float) -> PrunePlan:
    """Every group keeps this share of its channels, in whole blocks, whichever."""
    counts = local_counts(graph.groups, {g.name: 1 - width for g in graph.groups}, BLOCKS[0])
    return make_plan(graph, {name: range(count) for name, count in counts.items()})


def net_times(
    network: nn.Module,
    plans: Sequence[PrunePlan | None],
    example: Tensor,
    outputs: Outputs,
    machine: Machine,
    runs: int = RUNS,
) -> list[Latency]:
    """How long the net takes with each plan (None: as it is), all side by side."""
    nets = [network if plan is None else prune(network, plan) for plan in plans]
    runners = {str(number): whole_net(net, example, outputs, machine) for number, net in enumerate(nets)}
    return list(timed(runners, example, runs).values())


def whole_net(network: nn.Module, example: Tensor, outputs: Outputs, machine: Machine) -> Runner:
    with told_if_missing():
        return open_onnx(onnx_bytes(exportable(network, example, outputs)), machine)


def timed(runners: Mapping[str, Runner], example: Tensor, runs: int = RUNS) -> dict[str, Latency]:
    """All side by side on the same image; runtimes take it from the CPU's memory."""
    threads, example = next(iter(runners.values())).threads, example.cpu()
    return side_by_side({name: lambda run=run: run(example) for name, run in runners.items()}, runs, threads=threads)
