"""The typed schema of a run, its ranges, and the identity of what it computes.

Hydra composes conf/ into these dataclasses (`run.py` alone touches Hydra); past `run.py` only dataclasses and
plain values travel. `validate` turns every out-of-range value into one clear line before any work starts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError


@dataclass
class ModelConfig:
    """Which detector, from which weights."""

    name: str = "yolov8n"
    family: str = "yolov8"  # the adapter in detectors/
    variant: str = "n"
    weights: str | None = None  # a checkpoint of the whole detector, or a folder with one named for the model
    backbone_weights: str | None = None  # a checkpoint of the backbone alone, or such a folder
    stride_on_1x1: bool = False  # ResNet weights trained with the stride on the 1×1 convolution (Faster R-CNN)
    pretrained_label: str | None = None  # how tables name the weights


@dataclass
class DatasetConfig:
    """Which images and boxes."""

    name: str = "shapes"
    layout: str = "shapes"  # shapes | voc | coco | custom
    train: str = "train"  # split names as the layout knows them; voc: also several, "VOC2007/trainval+VOC2012/trainval"
    val: str = "val"
    file: str | None = None  # custom: an Ultralytics data.yaml, whose keys `train` and `val` then name
    train_images: str | None = None  # custom, without `file`: `train` and `val` are COCO JSON files, and these the
    val_images: str | None = None  # folders of their images; None: the folder of the JSON file
    published_train: int | None = None  # images in the official splits, to tell subsets from the whole
    published_val: int | None = None
    broken: str = "refuse"  # refuse | skip: what to do with unreadable images and annotations
    train_limit: int | None = None  # use the first n images only (a subset, and called one)
    val_limit: int | None = None
    generate_train: int = 1200  # shapes only: how many images to generate
    generate_val: int = 300
    generate_seed: int = 0
    generate_size: int = 192  # shapes only: side in pixels


@dataclass
class ImportanceConfig:
    """Which score, on how much calibration data."""

    name: str = "dcodp"
    images: int = 128  # calibration images, drawn from the training split; why so many: results/calibration.md
    batch: int = 8
    aggregate: str = "sum"  # sum | mean | max over the layers of a group | consumer: of what its consumers read
    locations: int = 10  # thinet, lasso: sampled output positions per image and consumer
    seed: int = 0


@dataclass
class TrainSettings:
    """One training phase; the defaults are the paper's (section 4 of METHOD.md's source)."""

    epochs: int = 100
    batch: int = 16
    optimizer: str = "adamw"  # adamw | sgd (with Nesterov momentum)
    lr: float = 1e-3
    fresh_lr: float = 1.0  # factor on lr where trained weights know none of the classes; a power of it for some
    lr_final: float = 1e-2  # cosine schedule: last learning rate as a fraction of the first
    schedule: str = "cosine"  # cosine | constant
    warmup_epochs: float = 3.0
    momentum: float = 0.937  # AdamW's beta1, or SGD's momentum
    weight_decay: float = 5e-4
    clip_norm: float = 10.0
    ema_decay: float = 0.9999
    ema_ramp: float = 2000.0  # steps over which the EMA decay ramps up
    mosaic: float = 1.0  # probability
    close_mosaic: int = 10  # the last epochs run without mosaic
    scale: float = 0.5  # random scale gain ±
    translate: float = 0.1
    flip: float = 0.5  # horizontal flip probability
    hsv: float = 1.0  # strength of colour jitter relative to ultralytics' defaults
    eval_every: int = 1  # epochs between validations (the last epoch is always validated)
    workers: int = 0
    amp: bool = True  # mixed precision on a GPU
    sparsity: float = 0.0  # Network Slimming: rate of the L1 penalty on the batch norms' scales


@dataclass
class EvaluationConfig:
    """Thresholds of the validation (the paper's) and how the figures are computed."""

    confidence: float = 0.001
    iou: float = 0.6
    max_detections: int = 300
    multi_label: bool = False  # one box may be found as several classes
    batch: int = 16
    backend: str = "pycocotools"  # pycocotools | hotcoco
    latency_runs: int = 20
    pictures: int = 6  # validation images drawn before and after


@dataclass
class PathsConfig:
    data: str = "data"
    results: str = "results"


@dataclass
class WandbConfig:
    mode: str = "offline"  # offline | online | disabled
    project: str = "dcodp"
    group: str | None = None  # the same for all cells of a sweep


@dataclass
class Config:
    """One cell: a detector, a data set, a criterion and a ratio."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    importance: ImportanceConfig = field(default_factory=ImportanceConfig)
    train: TrainSettings = field(default_factory=TrainSettings)
    finetune: TrainSettings = field(default_factory=lambda: TrainSettings(epochs=20))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    ratio: float = 0.5  # share of the channels removed from every coupling group
    target: str | None = None  # "flops:0.5" or "parameters:0.5" kept, in place of `ratio`
    scope: str = "local"  # local: the same share of every coupling group | global: the lowest of all channels together
    round_to: int = 1  # kept channels are a multiple of this
    interlayer: bool = True  # False: coupled layers are left alone, as the classical methods do
    compensate: bool = False
    image_size: int = 640
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    devices: int = 1  # training shares each batch among so many GPUs (or processes on a CPU) of this machine
    threads: int | None = None  # CPU threads; None leaves torch's default
    experiment_name: str | None = None


CHOICES = {
    "dataset.layout": ("shapes", "voc", "coco", "custom"),
    "dataset.broken": ("refuse", "skip"),
    "scope": ("local", "global"),
    "importance.aggregate": ("sum", "mean", "max", "consumer"),
    "train.optimizer": ("adamw", "sgd"),
    "finetune.optimizer": ("adamw", "sgd"),
    "train.schedule": ("cosine", "constant"),
    "finetune.schedule": ("cosine", "constant"),
    "evaluation.backend": ("pycocotools", "hotcoco"),
    "wandb.mode": ("offline", "online", "disabled"),
}
# key → (lowest, highest, highest is allowed)
RANGES: dict[str, tuple[float, float, bool]] = {
    "ratio": (0.0, 1.0, False),
    "round_to": (1, 1024, True),
    "image_size": (32, 4096, True),
    "seed": (0, 2**32 - 1, True),
    "importance.seed": (0, 2**32 - 1, True),
    "devices": (1, 64, True),
    "importance.images": (1, 10**6, True),
    "importance.batch": (1, 10**4, True),
    "importance.locations": (1, 10**6, True),
    "dataset.generate_train": (1, 10**6, True),
    "dataset.generate_val": (1, 10**6, True),
    "dataset.generate_size": (64, 2048, True),
    "evaluation.confidence": (0.0, 1.0, False),
    "evaluation.iou": (0.0, 1.0, True),
    "evaluation.max_detections": (1, 10**4, True),
    "evaluation.batch": (1, 10**4, True),
    "evaluation.latency_runs": (1, 10**5, True),
    "evaluation.pictures": (0, 100, True),
    **{
        f"{phase}.{key}": bounds
        for phase in ("train", "finetune")
        for key, bounds in {
            "epochs": (0, 10**5, True),
            "batch": (1, 10**5, True),
            "lr": (0.0, 10.0, True),
            "fresh_lr": (1e-3, 1e3, True),
            "lr_final": (0.0, 1.0, True),
            "warmup_epochs": (0.0, 10**4, True),
            "momentum": (0.0, 1.0, False),
            "weight_decay": (0.0, 1.0, True),
            "clip_norm": (0.0, 10**6, True),
            "ema_decay": (0.0, 1.0, False),
            "mosaic": (0.0, 1.0, True),
            "scale": (0.0, 1.0, False),
            "translate": (0.0, 1.0, True),
            "flip": (0.0, 1.0, True),
            "hsv": (0.0, 10.0, True),
            "eval_every": (1, 10**5, True),
            "workers": (0, 256, True),
            "sparsity": (0.0, 1.0, True),
        }.items()
    },
}


def lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def validate(config: Config) -> None:
    """Raises InputError naming the key, its value and what is allowed."""
    for key, allowed in CHOICES.items():
        if (value := lookup(config, key)) not in allowed:
            raise InputError(f"{key}={value} is not known; use one of {', '.join(allowed)}")
    for key, (low, high, closed) in RANGES.items():
        value = lookup(config, key)
        if not (low <= value <= high if closed else low <= value < high):
            raise InputError(f"{key}={value} is out of range; use {low} ≤ {key} {'≤' if closed else '<'} {high}")
    if config.image_size % 32:
        raise InputError(f"image_size={config.image_size} does not fit the detectors' strides; use a multiple of 32")
    if config.compensate:
        raise InputError("compensate=true is not available yet; leave it out")
    if config.target is not None:
        parse_target(config.target)


def parse_target(target: str) -> tuple[str, float]:
    """ "flops:0.5" → ("flops", 0.5): the share of the dense net's FLOPs (or parameters) to keep."""
    kind, _, share = target.partition(":")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if kind not in ("flops", "parameters") or not 0 < value <= 1:
        raise InputError(f"target={target} is not understood; write flops:0.5 or parameters:0.5 (the share to keep)")
    return kind, value


# What never changes a result: where things lie, how they are shown, how fast they run.
NOT_SEMANTIC = ("paths", "wandb", "experiment_name", "device", "threads", "train.workers",
                "finetune.workers", "evaluation.latency_runs", "evaluation.pictures", "evaluation.backend",
                "model.pretrained_label")  # fmt: skip


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def semantic(config: Config) -> dict[str, Any]:
    """The part of the configuration that decides the result, defaults included; files by content, not by place."""
    tree = to_dict(config)
    for key in NOT_SEMANTIC:
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node[part]
        node.pop(last)
    if config.target is not None:
        tree.pop("ratio")  # the target decides
    if config.devices == 1:
        tree.pop("devices")  # several have statistics of their own in batch norms on a CPU, and round differently
    for phase in ("train", "finetune"):
        if not tree[phase]["epochs"]:
            tree[phase] = {"epochs": 0}  # its other settings decide nothing
    for key in ("weights", "backbone_weights"):
        if tree["model"][key] is not None:
            tree["model"][key] = file_digest(Path(tree["model"][key]))
    _identify_files(tree["dataset"], config.dataset)
    return tree


def _identify_files(tree: dict[str, Any], dataset: DatasetConfig) -> None:
    """A custom set's files count by content and, as that alone does not tell which images they mean, by place too;
    no other set looks at these settings."""
    if dataset.layout != "custom":
        for key in ("file", "train_images", "val_images"):
            tree.pop(key)
        return
    for key, path in custom_files(dataset).items():
        tree[key] = f"{file_digest(path, 'a data.yaml or a COCO JSON file')} {path.resolve()}"
    for key in ("train_images", "val_images"):
        tree[key] = tree[key] and str(Path(tree[key]).resolve())


def custom_files(dataset: DatasetConfig) -> dict[str, Path]:
    """The files that describe a custom set: {"file": data.yaml} or {"train": COCO JSON, "val": COCO JSON}."""
    if dataset.file is not None:
        return {"file": Path(dataset.file)}
    files = {"train": Path(dataset.train), "val": Path(dataset.val)}
    if any(path.suffix.lower() != ".json" for path in files.values()):
        raise InputError(
            f"dataset={dataset.name} does not say where the data are; give dataset.file=PATH/data.yaml, "
            "or dataset.train=FILE.json and dataset.val=FILE.json in COCO's format"
        )
    return files


def digest(tree: Any) -> str:
    """A short stable hash of JSON-able content."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def file_digest(path: Path, what: str = "a weights file") -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of {what}")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
