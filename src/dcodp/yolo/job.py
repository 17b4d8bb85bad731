"""The whole way from a checkpoint to a small one with its card. Each part leaves a file, and is not done twice."""

from __future__ import annotations

import itertools
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp.config import Config
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import Opened, open_checkpoint
from dcodp.detectors.ultralytics.writing import mark, write_pt, write_safetensors
from dcodp.devices import device_named
from dcodp.errors import InputError
from dcodp.files import read_json, write_atomically
from dcodp.processor import cpu_name
from dcodp.pruning import PrunePlan
from dcodp.records.provenance import code_version, library_versions
from dcodp.report import card
from dcodp.yolo import exporting, measuring, pictures
from dcodp.yolo.asking import LOOKED_AT, WORK, Job, claim, composed, is_same, penalty_note, refuse_others, wishes
from dcodp.yolo.images import Images, calibration, from_classes, from_folder, from_yaml, readable
from dcodp.yolo.making import Making, whole_plan
from dcodp.yolo.tuning import usual_epochs

log = logging.getLogger(__name__)
PICTURES = 6  # images that are drawn


def prune_checkpoint(
    source: str | Path, data: str | Path | None = None, out: str | Path = "small", **asked: Any
) -> dict[str, Any]:
    """`dcodp prune` as a function: the card of what was made (see `Job` for what else can be asked for).

    Raises InputError for whatever cannot be used.
    """
    method = asked.pop("method", "strong")
    if "ratio" in asked and asked.setdefault("target", None) is not None:
        raise InputError("target and ratio were both given; choose one")
    paths = {key: Path(asked.pop(key)) for key in ("images", "table") if asked.get(key) is not None}
    job = Job(Path(source), Path(out), None if data is None else Path(data), **paths, **asked)
    return run(job, composed(method, job.target))


def run(job: Job, method: Config) -> dict[str, Any]:
    """All parts in order; returns the card."""
    work = job.out / WORK
    if job.source.resolve() in {(job.out / name).resolve() for name in ("small.pt", "small.safetensors")}:
        raise InputError(f"{job.source} would be overwritten by the smaller net; choose another --out")
    method = replace(method, importance=replace(method.importance, seed=job.seed))
    opened = open_checkpoint(job.source, job.imports)
    asked = wishes(job, method)
    if (job.out / "card.json").exists() and is_same(job.out, asked):
        found = read_json(job.out / "card.json")
        if set(job.export) <= found["exports"].keys():
            log.info("%s is there already", job.out / "card.json")
            return found
    refuse_others(job, asked)
    size = _size(job, opened)
    _make(work)
    images = _images(job, opened, work)
    claim(job, asked)
    detector = _detector(job, opened)
    epochs = job.epochs if job.epochs is not None else usual_epochs(len(images.of("train")))
    epochs = 0 if images.data is None else epochs
    making = Making(job, method, opened, detector, images, size, epochs)
    made = making.made()
    _write(job, made.network, opened, made.plan, size)
    notes = [*made.notes, *penalty_note(method)]
    found = _card(job, method, opened, images, size, epochs, notes, work)
    found["trained"]["steps"] = making.steps
    _draw(job, images, size, bool(epochs))
    card.write(job.out, found)
    return found


def _draw(job: Job, images: Images, size: int, trained: bool) -> None:
    """The first images that are measured on, under the dense and the small net."""
    paths = images.of(job.split if images.data is not None else "train")
    shown = [path for path, _ in itertools.islice(readable(paths), PICTURES)]
    small = {"finetuned" if trained else "repaired": job.out / "small.pt"}
    nets = {
        stage: _detector(job, open_checkpoint(path, job.imports))
        for stage, path in {"dense": job.source, **small}.items()
    }
    pictures.draw(job.out / "pictures.png", shown, nets, size)


def _size(job: Job, opened: Opened) -> int:
    """What was asked for, else what the net was trained at. Raises InputError unless the strides fit."""
    size, stride = (
        job.image_size or opened.image_size or 640,
        max(32, int(max(getattr(opened.network, "stride", [32])))),
    )
    if size % stride and opened.task != "classify":
        raise InputError(f"--imgsz {size} does not fit the net's strides; use a multiple of {stride}")
    return size


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder} ({error.strerror}); choose another --out") from error


def _images(job: Job, opened: Opened, work: Path) -> Images:
    if job.data is None:
        assert job.images is not None
        return from_folder(job.images)
    if opened.task == "classify":
        images = from_classes(job.data)
    else:
        images = from_yaml(job.data, work / "data")
    if images.names is not None and len(images.names) != len(opened.names):
        raise InputError(
            f"{job.data} has {len(images.names)} classes, {job.source} finds {len(opened.names)}; train it on these "
            "data first, or give the data.yaml that it was trained on"
        )
    known = tuple(opened.names[k] for k in sorted(opened.names))
    if images.names is not None and images.names != known and sorted(images.names) == sorted(known):
        raise InputError(
            f"{job.data} numbers the classes {', '.join(images.names)}, {job.source} {', '.join(known)}; give them in "
            "the net's order"
        )
    images.of(job.split)
    return images


def _detector(job: Job, opened: Opened) -> UltralyticsNet:
    names = tuple(opened.names[k] for k in sorted(opened.names))
    return UltralyticsNet(job.source.stem, opened.network.to(device_named(job.device)), names)


def _write(job: Job, small: nn.Module, opened: Opened, plan: PrunePlan, size: int) -> None:
    """small.pt (half precision, as ultralytics stores nets), small.safetensors and plan.json."""
    whole = whole_plan(opened, plan)
    mark(small, opened.description, whole, {"imgsz": size})
    write_pt(small, job.out / "small.pt", {"task": opened.task, "imgsz": size, "data": str(job.data or "")})
    write_safetensors(small, job.out / "small.safetensors")
    whole.to_json(job.out / "plan.json")


def _card(
    job: Job, method: Config, opened: Opened, images: Images, size: int, epochs: int, notes: list[str], work: Path
) -> dict[str, Any]:
    """Both nets as their files give them, measured on the same images."""
    small = open_checkpoint(job.out / "small.pt", job.imports)
    nets = {"dense": open_checkpoint(job.source, job.imports).network, "pruned": small.network}
    inputs = (torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
    shown = [b.float() / 255 for b in calibration(images.of("train"), LOOKED_AT, size, 1, job.seed)]
    both, files = exporting.pair(nets["dense"], small, size), {}
    if wanted := exporting.wanted(job.export, job.out):
        files, failed = exporting.exported(both, wanted, shown, job.out, work, job.threads)
        notes = [*notes, *failed]
        if images.data is not None and "onnx" in files:
            found = measuring.accuracy(
                job.out / "small.onnx", opened.description.kind, opened.task, images, job.split, size, 1, work
            )
            files["onnx"] |= {
                key: found.get(key) for key in ("map50", "map50_95", "top1") if found.get(key) is not None
            }
    blocks: dict[str, Any] = {name: measuring.cost(network, inputs) for name, network in nets.items()}
    if images.data is not None:
        for name, network in nets.items():
            path = work / f"accuracy-{name}.json"
            if name == "pruned" or not path.exists():
                found = measuring.accuracy(
                    network, opened.description.kind, opened.task, images, job.split, size, job.batch, work
                )
                write_atomically(path, json.dumps(found))
            blocks[name] |= read_json(path)
    return {
        "format": 1,
        "name": job.out.name,
        "source": job.source.name,
        "asked": {"target": job.target, "ratio": job.ratio, "method": method.method},
        "task": opened.task,
        "image_size": size,
        "trained": {
            "epochs": epochs,
            "images": len(images.of("train")),
            "seed": job.seed,
            "distill": method.finetune.distill,
            "distill_features": method.finetune.distill_features,
        },
        **blocks,
        "latency": exporting.latencies(both, list(files), shown[0], job.out, work, job.threads),
        "exports": files,
        "notes": notes,
        "versions": _versions(),
    }


def _versions() -> dict[str, Any]:
    code = code_version()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    named = {"code": code["git"] or code["version"], "machine": device, "processor": cpu_name()}
    return {**named, "libraries": library_versions()}
