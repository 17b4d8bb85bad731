"""One cell from configuration to record: every stage returns at once if its artefact is there and complete.

results/cache/dense/<key>/    the dense detector: training state, best.safetensors, its evaluation
        cache/scores/<key>/   one score per channel of every coupling group
        runs/<run id>/        plan.json, finetune/, model.safetensors, record.json, metrics.jsonl, log.txt, pictures.png

Keys are hashes of all settings that decide an artefact, so cells share what they have in common; a file lock lets
cells that start together compute it once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor, nn

from dcodp.config import Config, TrainSettings, digest, file_digest, to_dict
from dcodp.data.calibration import calibration_batches
from dcodp.data.load import fingerprint, load
from dcodp.data.progress import track
from dcodp.data.types import DetectionSet
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.registry import build
from dcodp.devices import devices_for
from dcodp.errors import InputError
from dcodp.evaluation.evaluate import Predictions, evaluate, fitness, load_predictions, predict, save_predictions
from dcodp.graph import CouplingGraph, trace
from dcodp.identity import dense_key, run_id, scores_key
from dcodp.importance.criteria import criterion
from dcodp.importance.criterion import check
from dcodp.importance.rescale import rescale
from dcodp.importance.score import observe
from dcodp.importance.slimming import prunable_scales, sparsity_penalty
from dcodp.importance.statistics import Statistics
from dcodp.pruning import PrunePlan, prune, select
from dcodp.pruning.store import load_tensors, save, save_tensors
from dcodp.records import (
    Record,
    RunFolder,
    append_metrics,
    collect_provenance,
    is_done,
    read_json,
    read_record,
    recording,
    run_folder,
    timed,
    write_atomically,
    write_record,
)
from dcodp.tracking import Mirror

log = logging.getLogger(__name__)
CONTRIBUTIONS = "contributions.safetensors"  # beside the scores, of criteria that rescale the consumers
SAVE_EVERY = 5.0  # seconds of scoring that an interruption may cost; sums can be large


@dataclass
class Cell:
    """What the stages of one cell share."""

    config: Config
    devices: list[torch.device]  # the first for all stages, all of them for training
    train_set: DetectionSet
    val_set: DetectionSet
    record: Record
    folder: RunFolder
    mirror: Mirror

    @property
    def device(self) -> torch.device:
        return self.devices[0]

    @property
    def cache(self) -> Path:
        return Path(self.config.paths.results) / "cache"


def run_cell(config: Config) -> Record:
    """Compute a cell, or return its record if it is there. Raises InputError for input that cannot be used."""
    check(config.importance.name, criterion(config.importance.name), config.importance.aggregate, config.scope)
    folder = run_folder(Path(config.paths.results), run_id(config))
    if is_done(folder):
        log.info("%s is there already", folder.run_id)
        return read_record(folder)
    record = _resumed_record(folder, config)
    with recording(folder, record), _logged_to(folder.log), devices_for(config.device, config.devices) as devices:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        log.info("%s on %s", folder.run_id, ", ".join(map(str, devices)))
        data = Path(config.paths.data)
        train_set, val_set = (load(config.dataset, data, split) for split in ("train", "val"))
        record.provenance = _provenance(config, devices, [train_set, val_set], record)
        results = Path(config.paths.results)
        mirror = Mirror(config.wandb, folder.run_id, config.wandb.group, results, to_dict(config))
        cell = Cell(config, devices, train_set, val_set, record, folder, mirror)
        _stages(cell)
    mirror.finish(record)
    return record


def _stages(cell: Cell) -> None:
    config, record = cell.config, cell.record
    with timed(record, "dense"):
        detector = dense_detector(cell)
        record.dense, dense_found = dense_evaluation(cell, detector)
        write_record(cell.folder, record)
    with timed(record, "score"):
        graph = coupling_graph(detector, config.image_size)
        scores = channel_scores(cell, detector, graph)
        _say_if_never_sparse(record, config)
    with timed(record, "prune"):
        plan = pruning_plan(cell, graph, scores)
        small = detector.with_network(prune(detector.network, plan))
        _rescale_consumers(cell, small, plan, graph)
        _say_what_was_pruned(record, graph, scores, plan)
    with timed(record, "evaluate"):
        record.pruned, pruned_found = evaluated(cell, small, "pruned")
        write_record(cell.folder, record)
    found = {"dense": dense_found, "pruned": pruned_found}
    if config.finetune.epochs:
        with timed(record, "finetune"):
            fitted(cell, small, cell.folder.path / "finetune", config.finetune, "finetune")
        with timed(record, "evaluate"):
            record.finetuned, found["finetuned"] = evaluated(cell, small, "finetuned")
    save(small.network, plan, cell.folder.model)
    _draw(cell, found)


# --- stages ----------------------------------------------------------------------------------------------------------


def dense_detector(cell: Cell) -> Detector:
    """The dense detector, trained (or loaded) once for all cells with the same settings."""
    config = cell.config
    torch.manual_seed(config.seed)
    detector, notes = build(config.model, cell.train_set.classes)
    for note in notes:
        log.warning("%s", note)
    cell.record.notes = list(dict.fromkeys([*cell.record.notes, *notes]))
    detector.network.to(cell.device)
    folder = cell.cache / "dense" / dense_key(config)
    with _locked(folder):
        fitted(cell, detector, folder, config.train, "train")
    return detector


def fitted(cell: Cell, detector: Detector, folder: Path, settings: TrainSettings, stage: str) -> None:
    """Train in place, or load what is there; the best weights are in the detector afterwards."""
    from dcodp.data.augment import TrainingBatches
    from dcodp.training import load_best, train

    config = cell.config

    # Partials rather than closures: the processes of a training on several devices are given them.
    on_val = {"detection_set": cell.val_set, "image_size": config.image_size, "settings": config.evaluation}
    batches = TrainingBatches(cell.train_set, config.image_size, settings, config.seed)
    extra_loss = _sparsity_loss(detector, config.image_size, settings.sparsity)
    train(
        detector, batches, settings, folder,
        seed=config.seed, devices=cell.devices, validate=partial(fitness, **on_val), extra_loss=extra_loss,
    )  # fmt: skip
    load_best(detector, folder)
    detector.network.eval()
    _mirror_metrics(cell, folder / "metrics.jsonl", stage)


def _sparsity_loss(detector: Detector, image_size: int, rate: float) -> Callable[[nn.Module], Tensor] | None:
    """Network Slimming's penalty on the scales that can be removed; none at rate 0."""
    if not rate:
        return None
    names = prunable_scales(detector.network, coupling_graph(detector, image_size))
    return partial(sparsity_penalty, rate=rate, names=names)


def coupling_graph(detector: Detector, image_size: int) -> CouplingGraph:
    """The coupling groups of a detector; its raw outputs are kept."""
    with detector.most_work():
        return trace(detector.network, detector.example_inputs(image_size), outputs=detector.outputs)


def channel_scores(cell: Cell, detector: Detector, graph: CouplingGraph) -> dict[str, Tensor]:
    """Scores of all groups, computed once per dense detector and criterion; an interrupted pass goes on."""
    config = cell.config
    folder = cell.cache / "scores" / scores_key(config)
    path = folder / "scores.safetensors"
    with _locked(folder):
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


def _rescale_consumers(cell: Cell, small: Detector, plan: PrunePlan, graph: CouplingGraph) -> None:
    """The second half of ThiNet and of the LASSO pruning; compensation, where asked for, does that and more."""
    path = cell.cache / "scores" / scores_key(cell.config) / CONTRIBUTIONS
    if path.exists() and not cell.config.compensate:
        rescale(small.network, plan, graph, load_tensors(path)[0])


def pruning_plan(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor]) -> PrunePlan:
    """Select channels; always written anew, since it follows from the scores in no time."""
    config = cell.config
    plan = select(
        graph, scores, config.ratio,
        round_to=config.round_to, interlayer=config.interlayer, scope=config.scope, target=config.target,
        comparable=criterion(config.importance.name).scale == "net",
    )  # fmt: skip
    plan.to_json(cell.folder.plan)
    return plan


def dense_evaluation(cell: Cell, detector: Detector) -> tuple[dict[str, Any], Predictions]:
    """The dense detector's figures, measured once for all cells that share it."""
    config = cell.config
    name = digest([to_dict(config.evaluation), str(cell.device), config.threads])
    folder = cell.cache / "dense" / dense_key(config)
    with _locked(folder):
        return _evaluation(cell, detector, folder / f"evaluation-{name}.json", folder / f"predictions-{name}.npz")


def evaluated(cell: Cell, detector: Detector, stage: str) -> tuple[dict[str, Any], Predictions]:
    """The figures of one stage of this cell."""
    path = cell.folder.path
    return _evaluation(cell, detector, path / f"evaluation-{stage}.json", path / f"predictions-{stage}.npz")


def _evaluation(
    cell: Cell, detector: Detector, block_path: Path, predictions_path: Path
) -> tuple[dict[str, Any], Predictions]:
    config = cell.config
    if block_path.exists() and predictions_path.exists():
        return read_json(block_path), load_predictions(predictions_path)
    found = predict(detector, cell.val_set, config.image_size, config.evaluation)
    save_predictions(predictions_path, found)
    block = evaluate(detector, cell.val_set, config.image_size, config.evaluation, predictions=found)
    write_atomically(block_path, json.dumps(block))
    return block, found


# --- around the stages -----------------------------------------------------------------------------------------------


def _resumed_record(folder: RunFolder, config: Config) -> Record:
    """A fresh record, with the wall times of an interrupted attempt carried on."""
    record = Record(folder.run_id, config=to_dict(config))
    with contextlib.suppress(InputError):
        if folder.record.exists():
            before = read_record(folder)
            record.provenance = {"wall_seconds": before.provenance.get("wall_seconds", {})}
    return record


def _provenance(
    config: Config, devices: list[torch.device], sets: list[DetectionSet], record: Record
) -> dict[str, Any]:
    name = torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else None
    found = collect_provenance(config.seed, name, {s.split: fingerprint(s) for s in sets})
    found["devices"] = len(devices)
    files = {key: getattr(config.model, key) for key in ("weights", "backbone_weights")}
    found["weights"] = {key: file_digest(Path(path)) for key, path in files.items() if path is not None}
    found["threads"] = torch.get_num_threads()
    found["images"] = {s.split: len(s) for s in sets}
    found["wall_seconds"] = record.provenance.get("wall_seconds", {})
    return found


def _say_what_was_pruned(record: Record, graph: CouplingGraph, scores: dict[str, Tensor], plan: PrunePlan) -> None:
    """Ratios that were reached and what was left alone go into the record."""
    record.provenance["pruning"] = {
        "groups": len(graph.groups),
        "channels": sum(g.channels for g in graph.groups),
        "channels_removed": round(plan.channel_ratio, 4),
        "layers_frozen": {f.layer: f.reason for f in graph.frozen},
        "coupling": {g.name: {"channels": g.channels, "layers": list(g.layers)} for g in graph.groups},
    }
    name = record.config["importance"]["name"]
    unscored = [g.name for g in graph.groups if g.name not in scores]
    if unscored:
        why = f"{len(unscored)} groups have no score by {name} and were left unpruned"
        record.notes.append(f"{why}: {', '.join(unscored)}")
    alike = [group for group, values in scores.items() if len(values) > 1 and bool((values == values[0]).all())]
    if alike:
        what = f"{name} scores all channels alike in {len(alike)} of {len(graph.groups)} groups"
        record.notes.append(f"{what}, so the later ones went: {', '.join(alike)}")


def _say_if_never_sparse(record: Record, config: Config) -> None:
    if config.importance.name == "slimming" and not (config.train.epochs and config.train.sparsity):
        note = "slimming scores a net that was not trained with its sparsity penalty (train.epochs, train.sparsity)"
        record.notes = list(dict.fromkeys([*record.notes, note]))


def _mirror_metrics(cell: Cell, path: Path, stage: str) -> None:
    """Copy a phase's per-epoch lines into the run's metrics.jsonl and to W&B, once."""
    known = {(row.get("stage"), row.get("epoch")) for row in _rows(cell.folder.metrics)}
    for row in _rows(path):
        row = {"stage": stage, **row}
        if (stage, row.get("epoch")) not in known:
            append_metrics(cell.folder, row)
            cell.mirror.log(row)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _draw(cell: Cell, found: dict[str, Predictions]) -> None:
    """The first validation images with what each net finds in them, side by side."""
    from dcodp.report.pictures import Drawn, draw_pictures

    images = cell.val_set.images[: cell.config.evaluation.pictures]
    if images:
        drawn = {stage: [Drawn(*predictions[i.id]) for i in images] for stage, predictions in found.items()}
        draw_pictures(cell.folder.pictures, [i.path for i in images], drawn, cell.val_set.classes)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Cells that share an artefact wait here for the one that computes it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("waiting for another cell that computes %s", folder.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Everything that is logged while the cell runs also goes to its log.txt."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.getLogger("dcodp").setLevel(logging.INFO)
    try:
        yield
    except BaseException:
        traceback.print_exc(file=handler.stream)  # in full here; the terminal gets one line
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
