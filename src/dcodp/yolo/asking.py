"""What is asked of `dcodp prune`, and whether a folder that is there was made of the same wishes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dcodp.config import Config, without_late_defaults
from dcodp.devices import device_named
from dcodp.errors import InputError
from dcodp.export.formats import require_known
from dcodp.files import file_digest, read_json, write_atomically
from dcodp.processor import is_of_another
from dcodp.targets import is_timed, parse_target
from dcodp.yolo.exporting import machine

WORK = "work"  # the folder of what is needed to go on after an interruption
LOOKED_AT = 4  # images on which an exported file is held against the net


@dataclass(frozen=True)
class Job:
    """What is asked for. `target`: "flops:0.5", "parameters:0.5" (the share that stays); None: `ratio` of the channels
    goes. "latency:0.5" is the share of the time that one image takes in `runtime` (None: onnxruntime) on `threads` CPU
    threads; what layers cost there is read from `table`, else measured once and kept. `round_to`: kept channels are a
    multiple of it; None: what keeps most of 16, 8 and 1 for a latency, else as in `dcodp.select`.

    `data`: a data.yaml (to classify: a folder of class folders) with labels; `images`: a folder without, for repair
    alone (`epochs=0`). None: `epochs` and `lr` by the number of images, `image_size` as the checkpoint was trained.
    """

    source: Path
    out: Path
    data: Path | None = None
    images: Path | None = None
    target: str | None = "flops:0.5"
    ratio: float = 0.5
    epochs: int | None = None
    image_size: int | None = None
    split: str = "val"
    round_to: int | None = None
    export: tuple[str, ...] = ()
    runtime: str | None = None
    threads: int | None = None
    table: Path | None = None
    batch: int = 16
    lr: float | None = None
    seed: int = 0
    device: str = "auto"
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.data is None) == (self.images is None):
            raise InputError("give either --data data.yaml, or --images FOLDER with --epochs 0 (repair without labels)")
        if self.images is not None and self.epochs:
            raise InputError(f"--epochs {self.epochs} needs labels; give --data data.yaml, or --epochs 0 with --images")
        if self.target is not None:
            parse_target(self.target)
        if self.export:
            require_known(self.export)
        machine(self.runtime, self.threads)  # for its refusal
        for name, value, least in (
            ("--epochs", self.epochs, 0),
            ("--batch", self.batch, 1),
            ("--imgsz", self.image_size, 32),
            ("--threads", self.threads, 1),
            ("--round-to", self.round_to, 1),
            ("--seed", self.seed, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{name} {value} is out of range; use {least} or more")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise InputError(f"--lr {self.lr:g} is out of range; use 0 < lr ≤ 1")
        if self.target is None and not 0 <= self.ratio < 1:
            raise InputError(f"--ratio {self.ratio:g} is out of range; use 0 ≤ ratio < 1 (the share that goes)")
        for name, given in (("--table", self.table), ("--runtime", self.runtime)):
            if given is not None and not is_timed(self.target):
                raise InputError(f"{name} is for --target latency:0.5; leave it out")
        if self.lr is not None and self.epochs == 0:
            raise InputError(f"--lr {self.lr:g} has nothing to train with --epochs 0; leave one of them out")
        device_named(self.device)  # for its refusal


def composed(method: str, target: str | None = None, overrides: Sequence[str] = ()) -> Config:
    """The parts of conf/method/NAME.yaml; its number of steps may depend on the target."""
    from dcodp.compose import cells, register
    from dcodp.resources import folder

    register()
    counted = None if is_timed(target) else target  # what is measured follows from no configuration
    ((_, config),) = cells(folder("conf"), [f"method={method}", f"target={counted or 'null'}", *overrides])
    if config.control != "none" or not config.finetune.labels:
        raise InputError(f"--method {method} is a control for `dcodp run`, of nets that nobody uses; choose another")
    return config


def penalty_note(method: Config) -> list[str]:
    """Whether the checkpoint was trained with Network Slimming's penalty does not stand in it."""
    if not method.train.sparsity:
        return []
    return [
        "slimming reads batch-norm scales, which tell little where the net was not trained with its penalty on them"
    ]


def wishes(job: Job, method: Config) -> dict[str, Any]:
    """What decides the small net; files by their content. Exports can be had later, too."""
    asked = {k: v for k, v in asdict(job).items() if k not in ("out", "device", "source", "export")}
    if job.data is not None and job.data.is_file():
        asked["data"] = f"{file_digest(job.data)} {job.data.resolve()}"
    parts = {name: asdict(getattr(method, name)) for name in ("importance", "allocation", "repair")}
    asked |= {"source": file_digest(job.source), "method": method.method, "parts": parts}
    teaching = without_late_defaults(method.finetune)
    asked |= {"distill": method.finetune.distill, "labels": method.finetune.labels}
    asked |= {key: teaching[key] for key in ("distill_features",) if key in teaching}
    asked |= {"steps": method.steps} if method.steps > 1 else {}
    asked["runtime"] = machine(job.runtime, job.threads).runtime
    if job.table is not None:  # what was measured elsewhere decides alone; the times of this machine are taken here
        asked["table"] = file_digest(job.table) if is_of_another(job.table) else None
    return json.loads(json.dumps(asked, default=str))


def is_same(out: Path, asked: dict[str, Any]) -> bool:
    path = out / WORK / "asked.json"
    return path.exists() and read_json(path) == asked


def refuse_others(job: Job, asked: dict[str, Any]) -> None:
    """What an earlier run with other wishes has left is refused, not mixed in."""
    work = job.out / WORK
    made = (job.out / "card.json").exists() or any(work.rglob("pruned.safetensors"))
    if made and not (work / "asked.json").exists():
        raise InputError(f"{job.out} holds a net of another run; choose another --out, or delete the folder")
    if made and not is_same(job.out, asked):
        before = read_json(work / "asked.json")
        other = ", ".join(f"{k}={before.get(k)}" for k in before | asked if before.get(k) != asked.get(k))
        raise InputError(f"{job.out} holds a run with {other}; choose another --out, or delete the folder")


def claim(job: Job, asked: dict[str, Any]) -> None:
    """From now on the folder is of these wishes: what they are made of is known to be there."""
    write_atomically(job.out / WORK / "asked.json", json.dumps(asked))
