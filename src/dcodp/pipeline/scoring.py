"""Scores of all channels, computed once for all cells that share the dense detector and the criterion."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from dcodp.config import Config
from dcodp.data.calibration import calibration_batches
from dcodp.data.progress import track
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.graph import CouplingGraph, trace
from dcodp.identity import scores_key
from dcodp.importance.rescale import rescale
from dcodp.importance.score import observe
from dcodp.importance.statistics import Statistics
from dcodp.pipeline.cell import Cell, locked
from dcodp.pruning import PrunePlan
from dcodp.pruning.store import load_tensors, save_tensors

CONTRIBUTIONS = "contributions.safetensors"  # beside the scores, of criteria that rescale the consumers
SAVE_EVERY = 5.0  # seconds of scoring that an interruption may cost; sums can be large


def coupling_graph(detector: Detector, image_size: int) -> CouplingGraph:
    """The coupling groups of a detector; its raw outputs are kept."""
    with detector.most_work():
        return trace(detector.network, detector.example_inputs(image_size), outputs=detector.outputs)


def channel_scores(cell: Cell, detector: Detector, graph: CouplingGraph) -> dict[str, Tensor]:
    """Scores of all groups, computed once per dense detector and criterion; an interrupted pass goes on."""
    config = cell.config
    folder = cell.cache / "scores" / scores_key(config)
    path = folder / "scores.safetensors"
    with locked(folder):
        if not path.exists():
            statistics = _statistics(config, detector, graph)
            if statistics.needs_data:
                _observe(cell, detector, statistics, folder / "partial.safetensors")
            if contributions := statistics.contributions():
                save_tensors(contributions, folder / CONTRIBUTIONS)
            save_tensors(statistics.group_scores(config.importance.name), path)
            (folder / "partial.safetensors").unlink(missing_ok=True)
        return load_tensors(path)[0]


def _statistics(config: Config, detector: Detector, graph: CouplingGraph) -> Statistics:
    chosen = config.importance
    options = {"aggregate": chosen.aggregate, "seed": chosen.seed, "locations": chosen.locations}
    return Statistics(detector.network, graph, [chosen.name], **options)


def _observe(cell: Cell, detector: Detector, statistics: Statistics, partial: Path) -> None:
    settings, size = cell.config.importance, cell.config.image_size
    if partial.exists():
        stored, header = load_tensors(partial)
        statistics.restore(stored, int(header["batches"]))
    batches = calibration_batches(cell.train_set, settings.images, size, settings.batch, settings.seed)
    total = -(-min(settings.images, len(cell.train_set)) // settings.batch)
    observe(
        statistics,
        track(batches, f"scoring {settings.name}", total),
        lambda batch: detector.predict(batch.images.to(cell.device), DecodeSettings(confidence=0.5)),
        lambda batch: detector.loss(batch.to(cell.device))[0],
        _at_most_every(SAVE_EVERY, lambda s: save_tensors(s.sums, partial, {"batches": str(s.batches)})),
    )


def _at_most_every(seconds: float, action: Callable[[Statistics], None]) -> Callable[[Statistics], None]:
    """`action`, passed over where the last was less than so many seconds ago."""
    last = -seconds

    def act(statistics: Statistics) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            action(statistics)
            last = time.monotonic()

    return act


def rescale_consumers(cell: Cell, small: Detector, plan: PrunePlan, graph: CouplingGraph) -> None:
    """The second half of ThiNet and of the LASSO pruning; compensation, where asked for, does that and more."""
    path = cell.cache / "scores" / scores_key(cell.config) / CONTRIBUTIONS
    if path.exists() and not cell.config.compensate:
        rescale(small.network, plan, graph, load_tensors(path)[0])
