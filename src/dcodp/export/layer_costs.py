"""What layers cost at their numbers of channels, measured once per machine and runtime, and what a net costs by that.

Each layer is timed by itself (with the activation that follows it) over a small grid of channel counts. Between them
the time is taken as a + b·inputs + c·outputs + d·inputs·outputs, no coefficient negative, fitted to relative errors: it
never says that fewer channels take longer, and a net's cost becomes a sum of products as that of FLOPs is. Kernels
work on blocks of channels, which a fit does not know: keep channels in multiples of 8 (`round_to`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from dcodp.errors import InputError
from dcodp.export.latency import side_by_side
from dcodp.export.layers import Layer, onnx_of
from dcodp.export.runtimes import Machine, open_onnx
from dcodp.files import read_json, write_atomically
from dcodp.graph import CouplingGraph
from dcodp.progress import track
from dcodp.pruning.costs import SumOfProducts, parameter_sizes

SHARES = (0.25, 0.5, 1.0)  # of a layer's inputs and outputs
RUNS, WARMUP = 15, 3
Point = tuple[int, int, float]  # inputs, outputs, milliseconds


@dataclass
class LayerTable:
    """`points`: what was measured of each layer (`Layer.key`), in `machine`'s runtime on so many threads."""

    machine: Machine
    points: dict[str, list[Point]] = field(default_factory=dict)

    def milliseconds(self, layer: Layer) -> np.ndarray:
        """Coefficients [4] of 1, inputs, outputs and inputs·outputs. Raises InputError where it was not measured."""
        if layer.key not in self.points:
            raise InputError(f"the table of layer costs lacks {layer.key}; measure it anew for this net and image size")
        return fitted(self.points[layer.key])

    def to_json(self) -> str:
        return json.dumps({"machine": asdict(self.machine), "points": self.points}, indent=1)

    @classmethod
    def read(cls, path: Path) -> LayerTable:
        """Raises InputError where the file is absent or no such table."""
        content = read_json(path)
        try:
            points = {k: [(int(i), int(o), float(t)) for i, o, t in rows] for k, rows in content["points"].items()}
            return cls(Machine(**content["machine"]), points)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} holds no table of layer costs ({error}); measure it anew") from None


def fitted(points: Sequence[Point]) -> np.ndarray:
    """Coefficients [4] of 1, inputs, outputs and inputs·outputs, none negative, nearest in relative error."""
    inputs, outputs, ms = np.array(points, float).T
    columns = np.column_stack([np.ones(len(ms)), inputs, outputs, inputs * outputs])
    scale = columns.max(0)
    return nnls(columns / scale / ms[:, None], np.ones(len(ms)))[0] / scale


def measured_table(
    layers: Iterable[Layer],
    machine: Machine,
    path: Path | None = None,
    milliseconds: Callable[[Layer, Machine], float] | None = None,
) -> LayerTable:
    """The table with all of `layers`: read from `path` as far as it is there, the rest measured and added to the file.

    A file measured elsewhere serves as well, if it was for the same runtime and threads. `milliseconds` measures one
    layer (None: in the runtime).
    Raises InputError where the file is of another runtime or number of threads.
    """
    table = LayerTable.read(path) if path is not None and path.exists() else LayerTable(machine)
    if not table.machine.alike(machine):
        raise InputError(f"{path} was measured with {table.machine}, not {machine}; give another file")
    missing = {layer.key: layer for layer in layers if layer.key not in table.points}
    for key, layer in track(missing.items(), "timing layers", len(missing)):
        table.points[key] = [
            (narrow.inputs, narrow.outputs, (milliseconds or layer_ms)(narrow, machine)) for narrow in narrowings(layer)
        ]
    if missing and path is not None:
        write_atomically(path, table.to_json())
    return table


def narrowings(layer: Layer) -> list[Layer]:
    """The layer with all combinations of `SHARES` of its inputs and outputs, in multiples of 8 where it has many."""
    inputs, outputs = _counts(layer.inputs), _counts(layer.outputs)
    pairs = [(i, o) for i in inputs for o in outputs] if layer.groups == 1 else [(i, layer.outputs) for i in inputs]
    return list(dict.fromkeys(layer.narrowed(*pair) for pair in pairs))


def _counts(channels: int) -> list[int]:
    step = 8 if channels >= 32 else 1
    return sorted({max(1, int(channels * share) // step * step) for share in SHARES})


def layer_ms(layer: Layer, machine: Machine) -> float:
    """The lower quartile of its runs: what else the machine does only ever adds."""
    run = open_onnx(onnx_of(layer), machine)
    images = torch.rand(1, layer.inputs, *layer.size, generator=torch.Generator().manual_seed(0))
    return side_by_side({"": lambda: run(images)}, RUNS, WARMUP, most_seconds=1.0)[""].q1_ms


def layers_cost(graph: CouplingGraph, layers: Sequence[tuple[str, Layer]], table: LayerTable) -> SumOfProducts:
    """Milliseconds of all layers, and of contractions that are no layers (attention) at the layers' price per FLOP."""
    terms = _Terms(graph)
    for name, layer in layers:
        inputs, outputs = terms.channels(name, layer)
        constant, per_input, per_output, per_pair = table.milliseconds(layer)
        for factor, dims in (
            (constant, []),
            (per_input, [inputs]),
            (per_output, [outputs]),
            (per_pair, [inputs, outputs]),
        ):
            terms.add(factor, dims)
    named = {name for name, _ in layers}
    dense = {c.layer: 0.0 for c in graph.contractions}
    for c in graph.contractions:
        dense[c.layer] += c.factor * float(np.prod([float(d.constant + d.coefficient.sum()) for d in c.dims]))
    known = sum(flops for layer, flops in dense.items() if layer in named)
    price = terms.dense_total() / known if known else 0.0
    for contraction in graph.contractions:
        if contraction.layer not in named:
            terms.add(contraction.factor * price, [terms.count(d) for d in contraction.dims])
    return terms.sum()


def reads_cost(graph: CouplingGraph, layers: Sequence[tuple[str, Layer]]) -> SumOfProducts:
    """How many numbers the layers read: what concatenations, splits and upsampling between them write."""
    terms = _Terms(graph)
    for name, layer in layers:
        terms.add(float(np.prod(layer.size)), [terms.channels(name, layer)[0]])
    return terms.sum()


Dim = tuple[float, np.ndarray]  # constant and slope [groups]: a number of channels as it follows the kept ones


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
        sides = [(constant[dim], slope[dim]) for dim in (0, 1)]
        rows, columns = sides
        if layer.groups > 1:
            width = (layer.inputs if layer.transposed else layer.outputs) / layer.groups
            groups = (rows[0] / width, rows[1] / width)
            per = (layer.inputs / layer.groups, layer.outputs / layer.groups)
            return (groups[0] * per[0], groups[1] * per[0]), (groups[0] * per[1], groups[1] * per[1])
        return (rows, columns) if layer.transposed else (columns, rows)

    def count(self, dim: object) -> Dim:
        sums = np.bincount(self.group_of[dim.channel], dim.coefficient, len(self.groups))  # type: ignore[attr-defined]
        return float(dim.constant), sums / [g.channels for g in self.groups]  # type: ignore[attr-defined]

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
