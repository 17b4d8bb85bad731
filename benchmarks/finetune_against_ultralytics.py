"""Training from trained weights: `schedule=finetune` against ultralytics' own trainer, both judged by our evaluator.

    python benchmarks/finetune_against_ultralytics.py model.weights=yolov8n.pt dataset=voc2007 paths.data=FOLDER
        image_size=256 [--epochs 1 3] [--seeds 0] [--ladder] [--name DATA] [--threads 2] [--work outputs/finetune]
        [--out results] [key=value …]

Same weights, images, boxes (VOC's difficult ones included), epochs, image size, batch, threads. Ultralytics trains with
its defaults, images in memory, and each net is what its trainer calls the best epoch. Each training is a process of its
own, the two trainers of a pair one after the other; one that is finished is not run again, and one of ours that was
interrupted goes on after its last epoch. `--ladder` trains ours with one part at a time taken back to the paper's, too.
Writes OUT/finetune_against_ultralytics.json and .md, to which earlier results of other data, epochs or seeds belong as
well.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import statistics as stats
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import peer_ultralytics
import torch
from clock import Clock
from documents.finetune_against_ultralytics import ALL, BRANCH, PARTS, Row, document, key_of

from dcodp.compose import cells, register
from dcodp.config import Config, semantic
from dcodp.data.splits import fingerprint, load
from dcodp.data.types import DetectionSet
from dcodp.detectors.base import Detector
from dcodp.detectors.families.yolov8 import CLASS_BRANCH
from dcodp.detectors.registry import build
from dcodp.evaluation.measuring import accuracy, fitness, predict
from dcodp.files import digest, file_digest, write_atomically
from dcodp.identity import dense_key
from dcodp.processor import cpu_name
from dcodp.progress import track
from dcodp.records.provenance import code_version, library_versions

CONF = Path(__file__).resolve().parents[1] / "conf"
NAME = "finetune_against_ultralytics"
TRAINERS = ("ultralytics", "ours")


# --- one training ---

Trained = tuple[Detector, Clock]


def ours(config: Config, train_set: DetectionSet, val_set: DetectionSet, folder: Path, anew: bool = False) -> Trained:
    """`anew`: the class branch as wide as the stock net's and initialised anew, whatever the weights know."""
    from dcodp.data.augment import TrainingBatches
    from dcodp.training import load_best, train

    torch.manual_seed(config.seed)
    detector, _ = build(config.model, train_set.classes)
    detector = with_fresh_class_branch(detector, config) if anew else detector
    validate = Validation({"detection_set": val_set, "image_size": config.image_size, "settings": config.evaluation})
    batches = TrainingBatches(train_set, config.image_size, config.train, config.seed)
    train(detector, batches, config.train, folder, seed=config.seed, devices=[torch.device("cpu")], validate=validate)
    load_best(detector, folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wall, cpu = [r["updates_wall_seconds"] for r in rows], [r["updates_cpu_seconds"] for r in rows]
    return detector, Clock(wall, cpu, threads=torch.get_num_threads())


class Validation:
    """Our validation, with the seconds of the updates since the last one: it is called after every epoch."""

    def __init__(self, given: dict[str, Any]):
        self.given, self.clock = given, Clock()
        self.clock.start()

    def __call__(self, detector: Detector) -> dict[str, Any]:
        self.clock.stop()
        numbers = fitness(detector, **self.given)
        self.clock.start()
        wall, cpu = self.clock.wall[-1], self.clock.cpu[-1]
        return {**numbers, "updates_wall_seconds": wall, "updates_cpu_seconds": cpu}


def with_fresh_class_branch(detector: Detector, config: Config) -> Detector:
    fresh, _ = build(dataclasses.replace(config.model, weights=None), detector.classes)
    state = {k: v for k, v in detector.network.state_dict().items() if not k.startswith(CLASS_BRANCH)}
    fresh.network.load_state_dict(state, strict=False)
    return fresh


def theirs(config: Config, train_set: DetectionSet, val_set: DetectionSet, folder: Path) -> Trained:
    """As `ours`, by ultralytics' trainer; its best.pt is read by our checkpoint reader."""
    best, clock = peer_ultralytics.train(
        str(config.model.weights), {"train": train_set, "val": val_set}, folder, epochs=config.train.epochs,
        imgsz=config.image_size, batch=config.train.batch, seed=config.seed,
    )  # fmt: skip
    model = dataclasses.replace(config.model, weights=str(best))
    return build(model, train_set.classes)[0], clock


# --- one cell ---


def run_cell(config: Config, trainer: str, part: str | None, folder: Path) -> None:
    """Trains, evaluates, and writes FOLDER/result.json."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    sets = [load(config.dataset, Path(config.paths.data), split) for split in ("train", "val")]
    weights = file_digest(Path(str(config.model.weights)))
    train_set, val_set = sets
    if trainer == "ours":
        detector, clock = ours(config, train_set, val_set, folder / "training", anew=part in (BRANCH, ALL))
    else:
        detector, clock = theirs(config, train_set, val_set, folder / "training")
    found = predict(detector, sets[1], config.image_size, config.evaluation)
    block = accuracy(sets[1], found, config.evaluation)
    result = {
        **cell_of(config, trainer, part),
        **{key: block[key] for key in ("map50_95", "map50", "images", "subset")},
        "train_images": len(sets[0]),
        "images_per_second": len(sets[0]) / stats.median(clock.wall),
        "images_per_cpu_second": len(sets[0]) / stats.median(clock.cpu),
        "parameters": sum(p.numel() for p in detector.network.parameters()),
        "settings": semantic(config)["train"] if trainer == "ours" else "ultralytics' defaults",
        "weights": weights,
        "data_fingerprint": [fingerprint(s) for s in sets],
        "threads": clock.threads,
        "hardware": cpu_name(),
        "libraries": library_versions(),
        "code": code_version(),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / "result.json", json.dumps(result, indent=1))


def cell_of(config: Config, trainer: str, part: str | None) -> dict[str, Any]:
    """What tells one training from another."""
    return {
        "trainer": trainer,
        "taken_back": part,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "image_size": config.image_size,
        "batch": config.train.batch,
        "epochs": config.train.epochs,
        "seed": config.seed,
    }


def folder_of(config: Config, trainer: str, part: str | None, work: Path) -> Path:
    """Our settings decide ours alone: a changed schedule leaves ultralytics' results valid."""
    cell = cell_of(config, trainer, part)
    words = [trainer, cell["model"], cell["dataset"], f"{cell['image_size']}px", f"b{cell['batch']}"]
    given = digest([semantic(config)[key] for key in ("model", "dataset")])
    words += [f"{cell['epochs']}ep", f"seed{cell['seed']}", dense_key(config) if trainer == "ours" else given]
    return work / "-".join([*words, *([f"without {part}".replace(" ", "_")] if part else [])])


# --- all cells ---


@dataclass(frozen=True)
class Training:
    """One cell of the comparison; `part` is what the ladder takes back to the paper's."""

    epochs: int
    seed: int
    trainer: str
    part: str | None = None


def asked(chosen: argparse.Namespace) -> list[Training]:
    runs = [(epochs, seed) for epochs in chosen.epochs for seed in chosen.seeds]
    pairs = [Training(*run, trainer) for run in runs for trainer in TRAINERS]
    return pairs + [Training(*run, "ours", part) for run in runs for part in PARTS if chosen.ladder]


def configured(chosen: argparse.Namespace, training: Training) -> Config:
    fixed = [f"train.epochs={training.epochs}", f"seed={training.seed}", f"threads={chosen.threads}", "device=cpu"]
    part = PARTS[training.part] if training.part else []
    ((_, config),) = cells(CONF, ["schedule=finetune", *chosen.overrides, *part, *fixed])
    return config


def measure(chosen: argparse.Namespace, training: Training) -> dict[str, Any]:
    """The result of one training, computed in a process of its own unless it is there."""
    folder = folder_of(configured(chosen, training), training.trainer, training.part, chosen.work)
    if not (folder / "result.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        one = ["--one", training.trainer, "--epochs", str(training.epochs), "--seeds", str(training.seed)]
        one += ["--part", training.part] if training.part else []
        given = [*chosen.overrides, *one, "--threads", str(chosen.threads), "--work", str(chosen.work)]
        with (folder / "log.txt").open("w") as log:
            subprocess.run([sys.executable, __file__, *given], check=True, stdout=log, stderr=log)
    return json.loads((folder / "result.json").read_text())


def write(out: Path, rows: list[Row]) -> str:
    """Both files; results of other cells that are there already stay."""
    path = out / f"{NAME}.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    merged = {key_of(row): row for row in [*kept, *rows]}
    measured = {"rows": [merged[key] for key in sorted(merged)]}
    write_atomically(path, json.dumps(measured, indent=1) + "\n")
    write_atomically(out / f"{NAME}.md", document(measured))
    return document(measured)


def main() -> None:
    chosen = parsed()
    register()
    if chosen.one:
        training = Training(chosen.epochs[0], chosen.seeds[0], chosen.one, chosen.part)
        config = configured(chosen, training)
        run_cell(config, chosen.one, chosen.part, folder_of(config, chosen.one, chosen.part, chosen.work))
        return
    trainings = asked(chosen)
    rows = [measure(chosen, training) for training in track(trainings, "trainings", len(trainings))]
    if chosen.name:
        rows = [{**row, "dataset": chosen.name} for row in rows]
    print(write(chosen.out, rows))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as of run.py: key=value")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, default=Path("outputs") / "finetune", help="trainings, kept")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--name", help="what the tables call the data, for instance that they are a subset")
    parser.add_argument("--ladder", action="store_true", help="ours also with one part at a time taken back")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)  # the process of one training
    chosen = parser.parse_intermixed_args()
    if not any(line.startswith("model.weights=") for line in chosen.overrides):
        parser.error("give model.weights=PATH, the checkpoint that both start from")
    return chosen


if __name__ == "__main__":
    main()
