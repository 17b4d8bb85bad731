"""From weights and the name of their model to a small net with its card, through the pipeline of `dcodp run`.

For what carries no description of itself: state dicts of torchvision's detectors, and YOLOv7. All stages leave their
artefacts under OUT/work, so what was interrupted goes on; what a person wants lies in OUT itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from dcodp.compose import cells, register
from dcodp.config import Config, ModelConfig, validate
from dcodp.data import data_yaml
from dcodp.detectors import Detector, build
from dcodp.errors import InputError
from dcodp.export.runtimes import default_threads
from dcodp.files import read_json, write_atomically
from dcodp.files.tensors import load_tensors
from dcodp.identity import run_id
from dcodp.pipeline import run_cell
from dcodp.pruning import load
from dcodp.records import Record, is_done, run_folder
from dcodp.report import card
from dcodp.resources import folder
from dcodp.yolo.asking import LOOKED_AT, WORK, Job, penalty_note
from dcodp.yolo.exporting import Pair, exported, latencies, wanted
from dcodp.yolo.images import calibration
from dcodp.yolo.tuning import usual_epochs, usual_lr

log = logging.getLogger(__name__)
FOR_TESTS = "_tiny_test"
ALWAYS = ("dataset=custom", "dataset.broken=skip", "schedule=finetune", "train.epochs=0", "wandb.mode=disabled")


def prune_named(model: str, job: Job, method: str = "strong", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`job` for the weights of `model`, a name of conf/model; returns the card of what was made.

    `overrides` are of `dcodp run`, and come last. Raises InputError for whatever cannot be used.
    """
    config = composed(model, job, method, overrides)
    _refuse_a_folder_of_others(job.out, config)
    if _is_there(job, config):
        log.info("%s is there already", job.out / "card.json")
        return read_json(job.out / "card.json")
    _require_usable(job, config)
    record = run_cell(config)
    return _handed_out(job, config, record)


def opened(place: str | Path) -> Detector:
    """The small detector that `prune_named` left in a folder, in eval mode on the CPU."""
    known = read_json(Path(place) / "card.json")
    dense, _ = build(ModelConfig(**known["model"]), tuple(known["classes"]))
    return _small(dense, Path(place))


def _small(dense: Detector, place: Path) -> Detector:
    weights = place / "small.safetensors"
    if not any(name.endswith("num_batches_tracked") for name in load_tensors(weights)[0]):
        from dcodp.detectors.torchvision_common import freeze_batch_norms

        freeze_batch_norms(dense.network)  # as they were where these weights came from
    return dense.with_network(load(dense.network, weights).eval())


def known_models() -> tuple[str, ...]:
    """The names of conf/model."""
    return tuple(sorted(path.stem for path in (folder("conf") / "model").glob("*.yaml")))


def composed(model: str, job: Job, method: str, overrides: Sequence[str] = ()) -> Config:
    """The cell of `dcodp run` that does this job."""
    if model not in known_models():
        names = ", ".join(name for name in known_models() if not name.endswith(FOR_TESTS))
        raise InputError(
            f"--model {model} is not known; use one of {names}, or leave --model out for nets of ultralytics"
        )
    if job.data is None:
        raise InputError("--model needs labels; give --data data.yaml in place of --images")
    if job.imports:
        raise InputError("--import is for nets of ultralytics; leave it out where --model is given")
    register()
    ((_, config),) = cells(
        folder("conf"), [f"model={model}", f"method={method}", f"target={job.target or 'null'}", *ALWAYS, *overrides]
    )
    _fill_in(config, job, job.data)
    validate(config)
    return config


def _fill_in(config: Config, job: Job, data: Path) -> None:
    """What was asked for goes over what the files of conf/ say."""
    config.model.weights, config.paths.results = str(job.source), str(job.out / WORK)
    config.dataset.file, config.dataset.val = str(data), "val"  # chooses the epoch, whatever is reported
    config.dataset.test = None if job.split == "val" else job.split
    config.round_to, config.device = job.round_to, job.device
    config.latency.runtime = job.runtime or config.latency.runtime
    config.latency.threads = job.threads
    config.latency.table = None if job.table is None else str(job.table)
    config.ratio = job.ratio if job.target is None else config.ratio
    config.image_size = job.image_size or config.image_size
    config.seed = config.importance.seed = job.seed
    config.finetune.batch = config.evaluation.batch = job.batch
    count = _images(data)
    config.finetune.lr = usual_lr(count) if job.lr is None else job.lr
    config.finetune.epochs = usual_epochs(count) if job.epochs is None else job.epochs


def _images(data: Path) -> int:
    return len(data_yaml.images(data, data_yaml.read(data), "train"))


def _is_there(job: Job, config: Config) -> bool:
    if not is_done(run_folder(Path(config.paths.results), run_id(config))) or not (job.out / "card.json").exists():
        return False
    card = read_json(job.out / "card.json")
    return set(job.export) <= card.get("exports", {}).keys() and _timed_on(card["latency"], job.threads)


def _refuse_a_folder_of_others(out: Path, config: Config) -> None:
    """What an earlier run with other wishes has left is not overwritten."""
    if not (out / "card.json").exists():
        return
    before = read_json(out / "card.json")
    if before.get("run_id") != run_id(config):
        asked = ", ".join(f"{key}={value}" for key, value in before["asked"].items() if value is not None)
        raise InputError(
            f"{out} holds a run of {before['source']} with {asked}, epochs={before['trained']['epochs']} or with other "
            "data; choose another --out, or delete the folder"
        )


def _require_usable(job: Job, config: Config) -> None:
    """Pruning a net that does not find the classes yet would measure nothing."""
    file = Path(str(config.dataset.file))
    classes, _ = data_yaml.classes(file, data_yaml.read(file))
    detector, _ = build(config.model, classes)
    if detector.fresh:
        known = round((1 - detector.fresh) * len(classes))
        raise InputError(
            f"{config.model.weights} knows {known} of {len(classes)} classes of {file}; train it on these data first, "
            "or give the data.yaml that it was trained on"
        )
    if job.export and _is_listed(detector, config):
        raise InputError(
            f"--export is for nets that take their images as one tensor; --model {config.model.name} takes a list of "
            "them, so leave it out"
        )


def _is_listed(detector: Detector, config: Config) -> bool:
    return not isinstance(detector.example_inputs(config.image_size)[0], Tensor)


def _handed_out(job: Job, config: Config, record: Record) -> dict[str, Any]:
    """Copies what the run's folder holds, and writes the card from its record."""
    run = run_folder(Path(config.paths.results), record.run_id)
    copies = {"small.safetensors": run.model, "plan.json": run.plan, "pictures.png": run.pictures}
    for name, path in copies.items():
        if path.exists():
            write_atomically(job.out / name, path.read_bytes())
    found = _card(job, config, record)
    files, failed, times = _in_other_programs(job, config, found["classes"])
    found |= {"exports": files, "notes": [*found["notes"], *penalty_note(config), *failed], "latency": times}
    card.write(job.out, found)
    return found


def _in_other_programs(
    job: Job, config: Config, classes: Sequence[str]
) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """What the card tells of exported files, notes on those that failed, and how long both nets take for an image.

    What was timed stays as it was timed.
    """
    dense, _ = build(config.model, tuple(classes))
    small = _small(dense, job.out)
    listed, work = _is_listed(dense, config), job.out / WORK
    both = Pair(dense.network.eval(), small.network, classes, dense.outputs, listed=listed)
    paths = data_yaml.images(Path(str(job.data)), data_yaml.read(Path(str(job.data))), "train")
    shown = [b.float() / 255 for b in calibration(paths, LOOKED_AT, config.image_size, 1, job.seed)]
    formats = wanted(job.export, job.out)
    files, failed = exported(both, formats, shown, job.out, work, job.threads) if formats else ({}, [])
    kept = work / "latency.json"
    times = read_json(kept) if kept.exists() else {}
    if not {"torch", *files} <= times.keys() or not _timed_on(times, job.threads):
        times = latencies(both, list(files), shown[0], job.out, work, job.threads)
        write_atomically(kept, json.dumps(times))
    return files, failed, times


def _timed_on(times: Mapping[str, Any], threads: int | None) -> bool:
    return all(found["dense"]["threads"] == (threads or default_threads()) for found in times.values())


def _card(job: Job, config: Config, record: Record) -> dict[str, Any]:
    """`dense` and `pruned` as they stand in the record, of which the small net is the last that was measured."""
    dense, small = record.stages[0], record.stages[-1]
    told, code = record.provenance, record.provenance["code"]
    asked = {"target": config.target, "ratio": None if config.target else config.ratio}
    model = {**asdict(config.model), "weights": None, "backbone_weights": None}
    return {
        "format": 1,
        "name": job.out.name,
        "source": job.source.name,
        "run_id": record.run_id,
        "model": model,
        "classes": list(dense["per_class"]),
        "asked": {**asked, "method": config.method, "round_to": config.round_to},
        "task": "detect",
        "image_size": config.image_size,
        "trained": {
            "epochs": config.finetune.epochs,
            "images": told["images"]["train"],
            "seed": config.seed,
            "distill": config.finetune.distill,
            "distill_features": config.finetune.distill_features,
        },
        "dense": {**dense, "split": job.split},
        "pruned": {**small, "split": job.split},
        "measured_by": "dcodp's validation, as COCO's own rules have it",
        "notes": record.notes,
        "versions": {
            "code": code["git"] or code["version"],
            "machine": told["device"],
            "libraries": told["libraries"],
        },
        "going_on": _going_on(job.out.name),
    }


def _going_on(name: str) -> list[str]:
    return [
        "    from dcodp.detectors import DecodeSettings",
        "    from dcodp.named import opened",
        f'    small = opened("{name}")  # this folder',
        "    small.predict(images, DecodeSettings())  # [B, 3, S, S] uint8, letterboxed RGB",
    ]
