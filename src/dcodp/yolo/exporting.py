"""Files for other programs of the small net, and how fast it is beside the dense one in each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dcodp.detectors.ultralytics.opening import Opened
from dcodp.errors import InputError
from dcodp.export import eager, export_checked, open_exported, side_by_side
from dcodp.export.checking import head_of, predictions
from dcodp.export.equality import Head
from dcodp.export.formats import FORMATS, SomeFailed, export
from dcodp.export.formats.exportable import Outputs
from dcodp.export.runtimes import Machine, Runner, default_threads
from dcodp.files import read_json

RUNS = 30
MOST_SECONDS = 20.0  # of timing one runtime


@dataclass(frozen=True, eq=False)
class Pair:
    """A net before and after, and what matters of what both return; `listed`: they take a list of images.

    `names` are of the classes; `head` reads detections from the outputs (None: the numbers alone are compared).
    """

    dense: nn.Module
    small: nn.Module
    names: Sequence[str]
    outputs: Outputs = predictions
    head: Head | None = None
    listed: bool = False


def pair(dense: nn.Module, small: Opened, size: int) -> Pair:
    """Of nets of ultralytics."""
    names = [small.names[k] for k in sorted(small.names)]
    return Pair(dense, small.network, names, head=head_of(small.network, small.task, len(names), size))


def wanted(asked: Sequence[str], out: Path) -> list[str]:
    """The formats that are asked for, behind those that an earlier call with the same wishes has written to OUT."""
    before = read_json(out / "card.json").get("exports", {}) if (out / "card.json").exists() else {}
    return list(dict.fromkeys([*before, *asked]))


def exported(
    nets: Pair, to: Sequence[str], images: Sequence[Tensor], out: Path, work: Path, threads: int | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Writes OUT/small.FORMAT, holds each against the net on `images` (batches of one, 0 … 1), and times both nets.

    Returns what the card tells of the files by format, and notes on those that failed. The dense net's files, written
    for the comparison alone, are in `work`.
    """
    result = export_checked(
        nets.small, images, nets.outputs, to, out, "small", head=nets.head, names=nets.names, runs=3,
        threads=threads,
    )  # fmt: skip
    files = {checked.file.format: checked.facts(out) for checked in result.files}
    for key in files:
        try:
            export(nets.dense, images[0], nets.outputs, [key], work, "dense", names=nets.names)
        except SomeFailed as error:
            result.failed[key] = f"the dense net: {error.failed[key]}"
    return files, [f"not exported: {key} ({why})" for key, why in result.failed.items()]


def latencies(
    nets: Pair, to: Sequence[str], image: Tensor, out: Path, work: Path, threads: int | None
) -> dict[str, dict[str, Any]]:
    """Per runtime the time of one image through both nets, in turns; torch itself first, without batch norms folded."""
    threads = threads or default_threads()
    one, other = (eager(net, nets.outputs, threads, nets.listed) for net in (nets.dense, nets.small))
    found = {"torch": _paired(one, other, image)}
    for key in to:
        paths = [folder / f"{name}{FORMATS[key].suffix}" for folder, name in ((work, "dense"), (out, "small"))]
        if all(path.exists() for path in paths):
            one, other = (open_exported(path, threads, spin=False) for path in paths)
            found[key] = {**_paired(one, other, image), "runtime": f"{one.runtime} {one.version}"}
    return found


def _paired(dense: Runner, small: Runner, image: Tensor) -> dict[str, Any]:
    runners = {"dense": dense, "pruned": small}
    calls = {name: lambda run=run: run(image) for name, run in runners.items()}
    times = side_by_side(calls, RUNS, 3, dense.threads, MOST_SECONDS)
    return {name: asdict(latency) for name, latency in times.items()}


def machine(runtime: str | None, threads: int | None) -> Machine:
    """What latency is measured in (None: ONNX Runtime). Raises InputError for a runtime that takes no ONNX."""
    runtime = runtime or "onnxruntime"
    if runtime not in ("onnxruntime", "openvino"):
        raise InputError(f"--runtime {runtime} is not known; use onnxruntime or openvino")
    return Machine(runtime, threads or default_threads(), spin=False)
