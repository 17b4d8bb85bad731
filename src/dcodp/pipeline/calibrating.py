"""Evidence about the net that is to be pruned: each statistic is gathered once for all cells that look at the same net.

One pass serves the criterion, the repair and whoever else asks; what an earlier cell has gathered is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dcodp.calibration import Evidence, Statistic, gather
from dcodp.data.calibration import calibration_batches
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.files import digest
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.graph import CouplingGraph
from dcodp.pipeline.cell import Cell, once, whole
from dcodp.pipeline.memory import explained
from dcodp.progress import track

SAVE_EVERY = 5.0  # seconds of calibration that an interruption may cost; sums can be large


def gathered(
    cell: Cell, detector: Detector, graph: CouplingGraph, statistics: Iterable[Statistic], step: int
) -> Evidence:
    """The evidence of these statistics; an interrupted pass goes on."""
    chosen = cell.config.importance
    options = {"seed": chosen.seed, "locations": chosen.locations}
    evidence = Evidence(detector.network, graph, dict.fromkeys(statistics), **options)
    wanted = [statistic for statistic in evidence.sums if evidence.needs_data(statistic)]
    folder = cell.evidence_folder(step)
    paths = {statistic: folder / f"{digest(statistic.name)}.safetensors" for statistic in wanted}

    def gather_the_rest() -> dict[Statistic, Any]:
        missing = [statistic for statistic, path in paths.items() if whole(path, load_tensors) is None]
        fresh = Evidence(detector.network, graph, missing, **options)
        partial = folder / f"partial-{digest([s.name for s in missing])}.safetensors"
        _watch(cell, detector, fresh, partial)
        for statistic in missing:
            save_tensors(fresh.sums[statistic], paths[statistic], {"statistic": statistic.name})
        partial.unlink(missing_ok=True)
        return {statistic: load_tensors(path) for statistic, path in paths.items()}

    for statistic, (sums, _) in once(folder, lambda: _all_of(paths), gather_the_rest).items():
        evidence.sums[statistic].update(sums)
        evidence.batches = number_of_batches(cell)
    return evidence


def _all_of(paths: Mapping[Statistic, Path]) -> dict[Statistic, Any] | None:
    """The stored sums, None where any are missing or damaged."""
    stored = {statistic: whole(path, load_tensors) for statistic, path in paths.items()}
    return None if None in stored.values() else stored


def number_of_batches(cell: Cell) -> int:
    images = min(cell.config.importance.images, len(cell.train_set))
    return -(-images // cell.config.importance.batch)


def batches(cell: Cell) -> Iterator[Batch]:
    """The calibration images, the same for all cells with the same seed."""
    chosen = cell.config.importance
    return calibration_batches(cell.train_set, chosen.images, cell.config.image_size, chosen.batch, chosen.seed)


def forward(detector: Detector) -> Callable[[nn.Module], Callable[[Batch], Any]]:
    """network → the pass of a batch through it as the detector's own; few boxes are kept, which saves their sorting."""

    def of(network: nn.Module) -> Callable[[Batch], Any]:
        same = detector.with_network(network)
        device = next(network.parameters()).device
        return lambda batch: same.predict(batch.images.to(device), DecodeSettings(confidence=0.5))

    return of


def _watch(cell: Cell, detector: Detector, evidence: Evidence, partial: Path) -> None:
    if (found := whole(partial, load_tensors)) is not None:
        stored, header = found
        evidence.restore(stored, int(header["batches"]))

    def losses(batch: Batch) -> dict[str, Tensor]:
        return detector.losses(batch.to(cell.device))

    def save(now: Evidence) -> None:
        save_tensors(now.state(), partial, {"batches": str(now.batches)})

    counted = track(batches(cell), f"looking at {cell.config.model.name}", number_of_batches(cell))
    with explained("importance.batch", cell.config.importance.batch, cell.device):
        gather(evidence, counted, forward(detector)(detector.network), losses, _at_most_every(SAVE_EVERY, save))


def _at_most_every(seconds: float, action: Callable[[Evidence], None]) -> Callable[[Evidence], None]:
    """`action`, passed over where the last was less than so many seconds ago."""
    last = -seconds

    def act(evidence: Evidence) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            action(evidence)
            last = time.monotonic()

    return act
