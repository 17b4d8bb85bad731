"""What layers cost at their numbers of channels, measured once per machine and runtime, and what a net costs by that.

Each layer is timed by itself (with the activation that follows it) over a small grid of channel counts. Between them
the time is taken as a + b·inputs + c·outputs + d·inputs·outputs, no coefficient negative, fitted to relative errors: it
never says that fewer channels take longer, and a net's cost becomes a sum of products as that of FLOPs is. Kernels
work on blocks of channels, which a fit does not know: keep channels in multiples of `BLOCKS` (`round_to`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
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
from dcodp.processor import cpu_name
from dcodp.progress import track

SHARES = (0.25, 0.5, 1.0)  # of a layer's inputs and outputs
BLOCKS = (16, 8)  # channels that kernels take at a time: floats in a vector of 512 and of 256 bits; 16 suits both
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
    ms = np.maximum(ms, 1e-6)  # no clock tells less
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

    A file measured elsewhere serves as well, if it was for the same runtime and threads and has all layers: times of
    two processors are not mixed. `milliseconds` measures one layer (None: in the runtime).
    Raises InputError where the file is of another runtime or number of threads, or lacks layers that cannot be measured
    here.
    """
    table = LayerTable.read(path) if path is not None and path.exists() else LayerTable(machine.versioned())
    if not table.machine.alike(machine):
        raise InputError(f"{path} was measured with {table.machine}, not {machine}; give another file")
    missing = {layer.key: layer for layer in layers if layer.key not in table.points}
    if missing and not table.machine.is_here:
        raise InputError(
            f"{path} was measured on {table.machine.processor} and lacks {len(missing)} layers of this net at this "
            "image size; complete it there (dcodp.export.latency_cost)"
        )
    for key, layer in track(missing.items(), "timing layers", len(missing)):
        table.points[key] = [
            (narrow.inputs, narrow.outputs, (milliseconds or layer_ms)(narrow, machine)) for narrow in narrowings(layer)
        ]
    if missing and path is not None:
        write_atomically(path, table.to_json())
    return table


def kept_table(machine: Machine) -> Path:
    """Where this computer keeps what layers cost in a runtime, for so many threads: measured once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcodp"
    name = re.sub(r"\W+", "-", cpu_name())  # homes are shared between computers
    return cache / f"layers-{machine.runtime}-{machine.threads}-threads-{name}.json"


def narrowings(layer: Layer) -> list[Layer]:
    """The layer with all combinations of `SHARES` of its inputs and outputs, in whole blocks where it has many."""
    inputs, outputs = _counts(layer.inputs), _counts(layer.outputs)
    pairs = [(i, o) for i in inputs for o in outputs] if layer.groups == 1 else [(i, layer.outputs) for i in inputs]
    return list(dict.fromkeys(layer.narrowed(*pair) for pair in pairs))


def _counts(channels: int) -> list[int]:
    step = next((block for block in BLOCKS if channels >= 4 * block), 1)
    return sorted({max(1, int(channels * share) // step * step) for share in SHARES})


def layer_ms(layer: Layer, machine: Machine) -> float:
    """The lower quartile of its runs: what else the machine does only ever adds."""
    run = open_onnx(onnx_of(layer), machine)
    images = torch.rand(1, layer.inputs, *layer.size, generator=torch.Generator().manual_seed(0))
    return side_by_side({"": lambda: run(images)}, RUNS, WARMUP, most_seconds=1.0)[""].q1_ms
