"""Exporting with proof: each file is opened in its runtime, held against the net on images, and timed beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.export.equality import TOLERANCE, Equality, Head, chosen_rows, compare, dense_head
from dcodp.export.formats import Exported, SomeFailed, export, one_line
from dcodp.export.formats.exportable import Outputs
from dcodp.export.latency import Latency, side_by_side
from dcodp.export.runtimes import Runner, default_threads, eager, open_exported

NET = "net"  # what the net itself, run by torch, is called beside its files


@dataclass(frozen=True)
class Checked:
    """One file that was written and opened; `latency` is of one batch of the images."""

    file: Exported
    runner: Runner
    equality: Equality
    latency: Latency

    def facts(self, folder: Path) -> dict[str, Any]:
        """As they stand in export.json."""
        return {
            "format": self.file.format, "file": str(self.file.path.relative_to(folder)), "bytes": self.file.size,
            "runtime": self.runner.runtime, "version": self.runner.version,
            "relative_error": list(self.equality.relative), "detections": self.equality.detections,
            "unmatched": self.equality.unmatched, "images": self.equality.images, "latency": asdict(self.latency),
        }  # fmt: skip


@dataclass
class Result:
    """What came of an export: files, the net's own latency in the same run, and why other formats failed."""

    files: list[Checked] = field(default_factory=list)
    net: Latency | None = None
    failed: dict[str, str] = field(default_factory=dict)


def export_checked(
    network: nn.Module,
    images: Sequence[Tensor],
    outputs: Outputs,
    to: Sequence[str],
    folder: Path,
    name: str,
    *,
    head: Head | None = None,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    spin: bool = True,
    runs: int = 20,
) -> Result:
    """As `formats.export` with the first of `images` (batches [B, 3, H, W] of one shape) as its example; then checks.

    A file that cannot be opened or does not compute what the net computes counts as failed, and stays for inspection.
    Raises InputError for unknown formats and without images.
    """
    if not images:
        raise InputError("there are no images to compare the export on; give --data")
    network = network.eval()
    result, threads = Result(), threads or default_threads()
    net, opened = eager(network, outputs, threads), []
    for file in _written(result, network, images[0], outputs, to, folder, name, names):
        try:
            runner = open_exported(file.path, threads, spin)
            found = compare(net, runner, images, head)
        except Exception as error:  # whatever a runtime says of a file; the others do not depend on it
            result.failed[file.format] = one_line(error)
            continue
        opened.append((file, runner, found))
        if not found.holds(TOLERANCE):
            result.failed[file.format] = f"it does not compute what the net computes: {found.statement}"
    calls = {NET: net, **{file.format: runner for file, runner, _ in opened}}
    times = side_by_side({key: lambda run=run: run(images[0]) for key, run in calls.items()}, runs, 3, threads)
    result.net = times[NET]
    result.files = [Checked(file, runner, found, times[file.format]) for file, runner, found in opened]
    return result


def _written(result: Result, network: nn.Module, *args: Any) -> list[Exported]:
    *given, names = args
    try:
        return export(network, *given, names=names)
    except SomeFailed as error:
        result.failed.update(error.failed)
        return error.written


def predictions(result: Any) -> Any:
    """Of the result of an ultralytics net in eval mode, what its exported file returns."""
    return result[0] if isinstance(result, tuple | list) else result


def head_of(network: Any, task: str, classes: int, image_size: int) -> Head | None:
    """How detections are read from `predictions` of an ultralytics net; None for tasks that detect nothing."""
    last = network.model[-1]
    if type(last).__name__ == "RTDETRDecoder":
        return chosen_rows(scale=image_size)
    if task not in ("detect", "segment", "pose", "obb"):
        return None
    return chosen_rows() if getattr(last, "end2end", False) else dense_head(classes)
