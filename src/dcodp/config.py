"""The typed schema of a run. Each key is declared once, with what is allowed beside it.

Hydra composes conf/ into these dataclasses (`run.py` alone touches Hydra); past `run.py` only dataclasses and
plain values travel. `validate` turns every out-of-range value into one clear line before any work starts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import file_digest
from dcodp.processor import is_of_another
from dcodp.targets import is_timed


def within(default: Any, low: float, high: float, below: bool = False, **metadata: Any) -> Any:
    """A number of low ≤ value ≤ high; `below`: < high."""
    return field(default=default, metadata={"range": (low, high, below), **metadata})


def one_of(default: str, *choices: str, **metadata: Any) -> Any:
    """One of a few words."""
    return field(default=default, metadata={"choices": choices, **metadata})


def shown(default: Any, **metadata: Any) -> Any:
    """What never changes a result: where things lie, how they are shown, how fast they run."""
    return field(default=default, metadata={"semantic": False, **metadata})


def late(declared: Any) -> Any:
    """A key that came after runs were made: at its default it identifies none, so that those keep their names."""
    declared.metadata = {**declared.metadata, "late": True}
    return declared


@dataclass
class ModelConfig:
    """Which detector, from which weights."""

    name: str = "yolov8n"
    family: str = "yolov8"  # the adapter in detectors/
    variant: str = "n"
    weights: str | None = None  # a checkpoint of the whole detector, or a folder with one named for the model
    backbone_weights: str | None = None  # a checkpoint of the backbone alone, or such a folder
    stride_on_1x1: bool = False  # ResNet weights trained with the stride on the 1×1 convolution (Faster R-CNN)
    pretrained_label: str | None = shown(None)  # how tables name the weights


@dataclass
class DatasetConfig:
    """Which images and boxes."""

    name: str = "shapes"
    layout: str = one_of("shapes", "shapes", "voc", "coco", "custom")
    train: str = "train"  # split names as the layout knows them; voc: also several, "VOC2007/trainval+VOC2012/trainval"
    val: str = "val"
    test: str | None = late(field(default=None))  # whose figures are recorded, where val's only choose epochs
    file: str | None = None  # custom: an Ultralytics data.yaml, whose keys `train` and `val` then name
    train_images: str | None = None  # custom, without `file`: where the images of `train` are, then a COCO JSON
    val_images: str | None = None  # those of `val`; None: in the folder of the JSON file
    test_images: str | None = late(field(default=None))  # the same of `test`
    published_train: int | None = None  # images in the official splits, to tell subsets from the whole
    published_val: int | None = None
    published_test: int | None = late(field(default=None))
    broken: str = one_of("refuse", "refuse", "skip")  # what to do with unreadable images and annotations
    train_limit: int | None = None  # use the first n images only (a subset, and called one)
    val_limit: int | None = None
    test_limit: int | None = late(field(default=None))
    generate_train: int = within(1200, 1, 10**6)  # shapes only: how many images to generate
    generate_val: int = within(300, 1, 10**6)
    generate_seed: int = 0
    generate_size: int = within(192, 64, 2048)  # shapes only: side in pixels


@dataclass
class ImportanceConfig:
    """Which score, on how much calibration data."""

    name: str = "dcodp"
    # calibration images, drawn from the training split; why so many: results/calibration.md
    images: int = within(128, 1, 10**6)
    batch: int = within(8, 1, 10**4)
    # over the layers of a group; consumer: of what its consumers read
    aggregate: str = one_of("sum", "sum", "mean", "max", "consumer")
    locations: int = within(10, 1, 10**6)  # thinet, lasso: sampled output positions per image and consumer
    seed: int = within(0, 0, 2**32 - 1)


@dataclass
class AllocationConfig:
    """How many channels of which group go: a name of `dcodp.pruning`."""

    name: str = one_of("uniform", "uniform", "global", "cost")
    floor: float = within(0.25, 0.0, 1.0)  # cost: the share of each group that stays, less if the budget takes more
    sensitivity: int = within(8, 0, 10**4)  # cost: images to measure on what single groups are worth; 0: not at all


@dataclass
class RepairConfig:
    """What is done to the pruned net before it is trained further."""

    name: str = "own"  # a name of dcodp.repairs; own: what the criterion's authors do, mostly nothing


@dataclass
class TrainSettings:
    """One training phase; the defaults are the paper's (section 4 of METHOD.md's source)."""

    epochs: int = within(100, 0, 10**5)
    batch: int = within(16, 1, 10**5)
    optimizer: str = one_of("adamw", "adamw", "sgd")  # sgd with Nesterov momentum
    lr: float = within(1e-3, 0.0, 10.0)
    # factor on lr where trained weights know none of the classes; of some, less
    fresh_lr: float = within(1.0, 1e-3, 1e3)
    lr_final: float = within(1e-2, 0.0, 1.0)  # cosine schedule: last learning rate as a fraction of the first
    schedule: str = one_of("cosine", "cosine", "constant")
    warmup_epochs: float = within(3.0, 0.0, 10**4)
    momentum: float = within(0.937, 0.0, 1.0, below=True)  # AdamW's beta1, or SGD's momentum
    weight_decay: float = within(5e-4, 0.0, 1.0)
    clip_norm: float = within(10.0, 0.0, 10**6)
    ema_decay: float = within(0.9999, 0.0, 1.0, below=True)
    ema_ramp: float = 2000.0  # steps over which the EMA decay ramps up
    mosaic: float = within(1.0, 0.0, 1.0)  # probability
    close_mosaic: int = 10  # the last epochs run without mosaic
    scale: float = within(0.5, 0.0, 1.0, below=True)  # random scale gain ±
    translate: float = within(0.1, 0.0, 1.0)
    flip: float = within(0.5, 0.0, 1.0)  # horizontal flip probability
    hsv: float = within(1.0, 0.0, 10.0)  # strength of colour jitter relative to ultralytics' defaults
    eval_every: int = within(1, 1, 10**5)  # epochs between validations (the last epoch is always validated)
    workers: int = within(0, 0, 256, semantic=False)
    amp: bool = True  # mixed precision on a GPU
    # and on a CPU, in bfloat16: faster where the hardware multiplies it (AMX, AVX512-BF16), far slower elsewhere
    amp_on_cpu: bool = late(field(default=False))
    sparsity: float = within(0.0, 0.0, 1.0)  # Network Slimming: rate of the L1 penalty on the batch norms' scales
    distill: float = late(within(0.0, 0.0, 1e4))  # fine-tuning only: the weight of what the dense net teaches
    distill_features: float = late(within(1.0, 0.0, 1e4))  # of that, the weight of its maps, summed over blocks
    labels: bool = late(field(default=True))  # fine-tuning only: whether the labels teach


@dataclass
class EvaluationConfig:
    """Thresholds of the validation (the paper's) and how the figures are computed."""

    confidence: float = within(0.001, 0.0, 1.0, below=True)
    iou: float = within(0.6, 0.0, 1.0)
    max_detections: int = within(300, 1, 10**4)
    multi_label: bool = False  # one box may be found as several classes
    batch: int = within(16, 1, 10**4)
    backend: str = one_of("pycocotools", "pycocotools", "hotcoco", semantic=False)
    latency_runs: int = within(20, 1, 10**5, semantic=False)
    pictures: int = within(6, 0, 100, semantic=False)  # validation images drawn before and after


@dataclass
class LatencyConfig:
    """target=latency:0.5 alone: the runtime of which the time counts, and what layers take there."""

    runtime: str = one_of("onnxruntime", "onnxruntime", "openvino")
    threads: int | None = None  # of the CPU; None: all
    table: str | None = None  # JSON of layer times, perhaps of another device; None: measured here, once, and kept


@dataclass
class PathsConfig:
    data: str = "data"
    results: str = "results"
    own: str | None = None  # a folder of one's own criteria, repairs and detectors (dcodp/own.py)


@dataclass
class WandbConfig:
    mode: str = one_of("offline", "offline", "online", "disabled")
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
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    paths: PathsConfig = field(default_factory=PathsConfig, metadata={"semantic": False})
    wandb: WandbConfig = field(default_factory=WandbConfig, metadata={"semantic": False})
    method: str = shown("paper")  # the name under which conf/method composes the parts below
    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    repair: RepairConfig = field(default_factory=RepairConfig)
    # scratch: the pruned architecture is trained from random weights, for comparison
    control: str = late(one_of("none", "none", "scratch"))
    steps: int = within(1, 1, 100)  # prune, repair and fine-tune so many times, to the same final ratio or target
    ratio: float = within(0.5, 0.0, 1.0, below=True)  # share of the channels removed from every coupling group
    target: str | None = None  # "flops:0.5", "parameters:0.5" or "latency:0.5" kept, in place of `ratio`
    # kept channels are a multiple of this; null: of 8 where that meets a target in FLOPs or parameters, else any
    # number; with a latency 1 and null are the same: of 16 or 8, or any number
    round_to: int | None = within(1, 1, 1024)
    interlayer: bool = True  # False: coupled layers are left alone, as the classical methods do
    image_size: int = within(640, 32, 4096)
    seed: int = within(0, 0, 2**32 - 1)
    device: str = shown("auto")  # auto | cpu | cuda | cuda:N
    # training shares each batch among so many GPUs (or processes on a CPU) of this machine
    devices: int = within(1, 1, 64)
    threads: int | None = shown(None)  # CPU threads; None leaves torch's default
    experiment_name: str | None = shown(None)


def keys(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Every key of the schema, its value and its declaration; a section comes before its keys."""
    for declared in dataclasses.fields(config):
        key, value = f"{prefix}{declared.name}", getattr(config, declared.name)
        yield key, value, declared
        if dataclasses.is_dataclass(value):
            yield from keys(value, f"{key}.")


def validate(config: Config) -> None:
    """Raises InputError naming the key, its value and what is allowed."""
    for key, value, declared in keys(config):
        allowed = declared.metadata.get("choices")
        if allowed and value not in allowed:
            raise InputError(f"{key}={value} is not known; use one of {', '.join(allowed)}")
        if value is None or "range" not in declared.metadata:
            continue
        low, high, below = declared.metadata["range"]
        if not (low <= value < high if below else low <= value <= high):
            raise InputError(f"{key}={value} is out of range; use {low} ≤ {key} {'<' if below else '≤'} {high}")
    if config.image_size % 32:
        raise InputError(f"image_size={config.image_size} does not fit the detectors' strides; use a multiple of 32")
    if is_timed(config.target) and config.steps > 1:
        raise InputError(f"steps={config.steps} with target={config.target}: one cut alone is timed; use steps=1")
    _require_that_something_teaches(config)


def _require_that_something_teaches(config: Config) -> None:
    if not (config.finetune.labels or config.finetune.distill):
        raise InputError("finetune.labels=false leaves nothing to learn from; set finetune.distill=1, say")
    if config.control == "scratch" and (config.steps > 1 or not config.finetune.epochs):
        raise InputError(
            f"control=scratch trains one small net from random weights; use steps=1 and finetune.epochs of 1 or more, "
            f"not {config.steps} and {config.finetune.epochs}"
        )


def to_dict(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)


def not_semantic() -> tuple[str, ...]:
    """The keys that never change a result."""
    return tuple(key for key, _, declared in keys(Config()) if not declared.metadata.get("semantic", True))


def _late_defaults(config: Any) -> list[str]:
    """The late keys that are at their defaults, of a configuration or a section of it."""
    return [key for key, value, declared in keys(config) if "late" in declared.metadata and value == declared.default]


@functools.cache
def late_defaults() -> dict[str, Any]:
    """What configurations that were made before a key was there mean by its absence."""
    return {key: declared.default for key, _, declared in keys(Config()) if "late" in declared.metadata}


def without_late_defaults(config: Any) -> dict[str, Any]:
    """A section as a dictionary, without the keys that came later where they are at their defaults."""
    left_out = _late_defaults(config)
    return {key: value for key, value in to_dict(config).items() if key not in left_out}


OF_A_PRUNED_NET = ("train.distill", "train.distill_features", "train.labels")  # who trains the dense net has no teacher


def semantic(config: Config) -> dict[str, Any]:
    """The part of the configuration that decides the result, defaults included; files by content, not by place."""
    tree = to_dict(config)
    for key in (*not_semantic(), *_late_defaults(config), *OF_A_PRUNED_NET):
        *parents, last = key.split(".")
        node = tree
        for part in parents:
            node = node.get(part, {})
        node.pop(last, None)
    if config.target is not None:
        tree.pop("ratio")  # the target decides
    _identify_time(tree, config)
    if config.devices == 1:
        tree.pop("devices")  # several have statistics of their own in batch norms on a CPU, and round differently
    for phase in ("train", "finetune"):
        if not tree[phase]["epochs"]:
            tree[phase] = {"epochs": 0}  # its other settings decide nothing
    for key in ("weights", "backbone_weights"):
        if tree["model"][key] is not None:
            tree["model"][key] = file_digest(Path(tree["model"][key]))
    if config.model.variant.endswith((".yaml", ".yml")):  # a description of one's own
        tree["model"]["variant"] = file_digest(Path(config.model.variant))
    _identify_files(tree["dataset"], config.dataset)
    return tree


def _identify_time(tree: dict[str, Any], config: Config) -> None:
    """What is timed decides only where a latency is wanted; the machine is named in the record's provenance."""
    if not is_timed(config.target):
        tree.pop("latency")
    elif config.latency.table is not None:
        # Of this machine: its layers are timed here anyway, and added to the file.
        table = Path(config.latency.table)
        tree["latency"]["table"] = file_digest(table) if is_of_another(table) else None


DESCRIBED = "a data.yaml or a COCO JSON file (`dcodp data fetch` brings published sets)"


def _identify_files(tree: dict[str, Any], dataset: DatasetConfig) -> None:
    """A custom set's files count by content and, as that alone does not tell which images they mean, by place too;
    no other set looks at these settings."""
    if dataset.layout != "custom":
        for key in ("file", "train_images", "val_images", "test_images"):
            tree.pop(key, None)
        return
    for key, path in custom_files(dataset).items():
        tree[key] = f"{file_digest(path, DESCRIBED)} {path.resolve()}"
    for key in ("train_images", "val_images", "test_images"):
        if tree.get(key):
            tree[key] = str(Path(tree[key]).resolve())


def splits(dataset: DatasetConfig) -> tuple[str, ...]:
    """What is read of a data set: "train", "val", and "test" where the figures are of that one."""
    return ("train", "val") if dataset.test is None else ("train", "val", "test")


def custom_files(dataset: DatasetConfig) -> dict[str, Path]:
    """The files that describe a custom set: {"file": data.yaml} or {"train": COCO JSON, "val": COCO JSON}."""
    if dataset.file is not None:
        return {"file": Path(dataset.file)}
    files = {split: Path(getattr(dataset, split)) for split in splits(dataset)}
    if any(path.suffix.lower() != ".json" for path in files.values()):
        raise InputError(
            f"dataset={dataset.name} does not say where the data are; give dataset.file=PATH/data.yaml, "
            "or dataset.train=FILE.json and dataset.val=FILE.json in COCO's format"
        )
    return files
