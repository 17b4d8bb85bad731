"""Training from trained weights: `schedule=finetune` against ultralytics' own trainer, both judged by our evaluator.

    python benchmarks/finetune_against_ultralytics.py model.weights=yolov8n.pt dataset=voc2007 paths.data=FOLDER
        image_size=256 [--epochs 1 3] [--seeds 0] [--threads 2] [--work outputs/finetune] [--out results] [key=value …]

Same weights, images, boxes (VOC's difficult ones included), epochs, image size, batch, threads. Ultralytics trains with
its defaults, images in memory, and each net is what its trainer calls the best epoch. Each training is a process of its
own, the two trainers of a pair one after the other; one that is finished is not run again, and one of ours that was
interrupted goes on after its last epoch. Writes OUT/finetune_against_ultralytics.json and .md, to which earlier results
of other data, epochs or seeds belong as well.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics as stats
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from matplotlib import font_manager

from dcodp import _ultralytics
from dcodp.compose import cells, register
from dcodp.config import Config, semantic
from dcodp.data.splits import fingerprint, load
from dcodp.data.types import DetectionSet
from dcodp.detectors.base import Detector
from dcodp.detectors.registry import build
from dcodp.evaluation.measuring import accuracy, fitness, predict
from dcodp.files import file_digest, write_atomically
from dcodp.identity import dense_key
from dcodp.progress import track
from dcodp.records.provenance import code_version, cpu_name, library_versions

CONF = Path(__file__).resolve().parents[1] / "conf"
NAME = "finetune_against_ultralytics"
TRAINERS = ("ultralytics", "ours")


# --- one training ---


def ours(config: Config, train_set: DetectionSet, val_set: DetectionSet, folder: Path) -> tuple[Detector, list[float]]:
    """The trained detector, and the seconds of each epoch without its validation."""
    from dcodp.data.augment import TrainingBatches
    from dcodp.training import load_best, train

    torch.manual_seed(config.seed)
    detector, _ = build(config.model, train_set.classes)
    validate = partial(timed_fitness, detection_set=val_set, image_size=config.image_size, settings=config.evaluation)
    batches = TrainingBatches(train_set, config.image_size, config.train, config.seed)
    train(detector, batches, config.train, folder, seed=config.seed, devices=[torch.device("cpu")], validate=validate)
    load_best(detector, folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return detector, [row["seconds"] - row.get("validation_seconds", 0.0) for row in rows]


def timed_fitness(detector: Detector, **given: Any) -> dict[str, Any]:
    start = time.perf_counter()
    return {**fitness(detector, **given), "validation_seconds": time.perf_counter() - start}


def theirs(
    config: Config, train_set: DetectionSet, val_set: DetectionSet, folder: Path
) -> tuple[Detector, list[float]]:
    """As `ours`, by ultralytics' trainer; its best.pt is read by our checkpoint reader."""
    place_font(folder.parent)
    _ultralytics.prepare()
    from ultralytics import YOLO

    shutil.rmtree(folder, ignore_errors=True)
    data = export({"train": train_set, "val": val_set}, folder / "data")
    clock, threads = Clock(), torch.get_num_threads()
    model = YOLO(str(config.model.weights))
    model.add_callback("on_train_start", lambda _: torch.set_num_threads(threads))  # it leaves one core aside
    model.add_callback("on_train_epoch_start", clock.start)
    model.add_callback("on_train_epoch_end", clock.stop)
    model.train(
        data=str(data), epochs=config.train.epochs, imgsz=config.image_size, batch=config.train.batch, seed=config.seed,
        device="cpu", cache="ram", plots=False, project=str(folder), name="training", exist_ok=True,
    )  # fmt: skip
    config.model.weights = str(folder / "training" / "weights" / "best.pt")
    return build(config.model, train_set.classes)[0], clock.seconds


class Clock:
    """The seconds of each epoch's updates, through the trainer's callbacks."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def start(self, _: Any) -> None:
        self._start = time.perf_counter()

    def stop(self, _: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def place_font(folder: Path) -> None:
    """Ultralytics would fetch a font that it draws nothing with here."""
    os.environ["YOLO_CONFIG_DIR"] = str(folder / "settings")
    font = folder / "settings" / "Ultralytics" / "Arial.ttf"
    font.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(font_manager.findfont("DejaVu Sans"), font)


def export(sets: dict[str, DetectionSet], folder: Path) -> Path:
    """The sets in ultralytics' layout, images as links; returns the data.yaml."""
    for split, images in sets.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for image in images.images:
            (folder / "images" / split / image.path.name).symlink_to(image.path.resolve())
            label = (folder / "labels" / split / image.path.name).with_suffix(".txt")
            label.write_text("".join(lines_of(image)))
    names = dict(enumerate(sets["train"].classes))
    described = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val", "names": names}
    (folder / "data.yaml").write_text(json.dumps(described))
    return folder / "data.yaml"


def lines_of(image: Any) -> list[str]:
    """ "class cx cy w h" in fractions of the image; crowds are left out, as our training leaves them out."""
    size = torch.tensor([image.width, image.height] * 2)
    boxes = torch.from_numpy(image.boxes).reshape(-1, 4).double() / size
    boxes = boxes.clamp(0, 1)[~torch.from_numpy(image.crowd)]
    labels = image.labels[~image.crowd]
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rows = torch.cat([centre, sides], 1).tolist()
    return [f"{label} {' '.join(f'{v:.6f}' for v in row)}\n" for label, row in zip(labels, rows, strict=True)]


# --- one cell ---


def run_cell(config: Config, trainer: str, folder: Path) -> None:
    """Trains, evaluates, and writes FOLDER/result.json."""
    torch.set_num_threads(config.threads or torch.get_num_threads())
    sets = [load(config.dataset, Path(config.paths.data), split) for split in ("train", "val")]
    weights = file_digest(Path(str(config.model.weights)))
    detector, seconds = (ours if trainer == "ours" else theirs)(config, *sets, folder / "training")
    found = predict(detector, sets[1], config.image_size, config.evaluation)
    block = accuracy(sets[1], found, config.evaluation)
    result = {
        **cell_of(config, trainer),
        **{key: block[key] for key in ("map50_95", "map50", "images", "subset")},
        "train_images": len(sets[0]),
        "images_per_second": len(sets[0]) / stats.median(seconds),
        "parameters": sum(p.numel() for p in detector.network.parameters()),
        "settings": semantic(config)["train"] if trainer == "ours" else "ultralytics' defaults",
        "weights": weights,
        "data_fingerprint": [fingerprint(s) for s in sets],
        "threads": torch.get_num_threads(),
        "hardware": cpu_name(),
        "libraries": library_versions(),
        "code": code_version(),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_atomically(folder / "result.json", json.dumps(result, indent=1))


def cell_of(config: Config, trainer: str) -> dict[str, Any]:
    """What tells one training from another."""
    return {
        "trainer": trainer,
        "model": config.model.name,
        "dataset": config.dataset.name,
        "image_size": config.image_size,
        "batch": config.train.batch,
        "epochs": config.train.epochs,
        "seed": config.seed,
    }


def folder_of(config: Config, trainer: str, work: Path) -> Path:
    """Our settings decide ours alone: a changed schedule leaves ultralytics' results valid."""
    cell = cell_of(config, trainer)
    words = [trainer, cell["model"], cell["dataset"], f"{cell['image_size']}px", f"b{cell['batch']}"]
    words += [f"{cell['epochs']}ep", f"seed{cell['seed']}", *([dense_key(config)] if trainer == "ours" else [])]
    return work / "-".join(words)


# --- all cells ---


def configured(chosen: argparse.Namespace, epochs: int, seed: int) -> Config:
    fixed = [f"train.epochs={epochs}", f"seed={seed}", f"threads={chosen.threads}", "device=cpu"]
    ((_, config),) = cells(CONF, ["schedule=finetune", *chosen.overrides, *fixed])
    return config


def measure(chosen: argparse.Namespace, config: Config, trainer: str) -> dict[str, Any]:
    """The result of one training, computed in a process of its own unless it is there."""
    folder = folder_of(config, trainer, chosen.work)
    if not (folder / "result.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        one = ["--one", trainer, "--epochs", str(config.train.epochs), "--seeds", str(config.seed)]
        given = [*chosen.overrides, *one, "--threads", str(chosen.threads), "--work", str(chosen.work)]
        with (folder / "log.txt").open("w") as log:
            subprocess.run([sys.executable, __file__, *given], check=True, stdout=log, stderr=log)
    return json.loads((folder / "result.json").read_text())


def key_of(row: dict[str, Any]) -> tuple:
    return tuple(row[key] for key in ("model", "dataset", "image_size", "batch", "epochs", "seed", "trainer"))


def table(rows: list[dict[str, Any]]) -> str:
    heads = [
        "data",
        "px",
        "batch",
        "epochs",
        "seeds",
        "ultralytics: mAP50-95",
        "ours",
        "difference",
        "images/s",
        "ours",
    ]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for cell in dict.fromkeys(key_of(row)[:5] for row in rows):
        pairs = paired([row for row in rows if key_of(row)[:5] == cell])
        if not pairs:
            continue
        accuracies, speeds = (
            [[row[key] for row in pair] for pair in pairs] for key in ("map50_95", "images_per_second")
        )
        name = f"{cell[1]} ({pairs[0][0]['train_images']}/{pairs[0][0]['images']})"
        figures = [spread([pair[0] for pair in accuracies]), spread([pair[1] for pair in accuracies])]
        figures += [spread([b - a for a, b in accuracies], "+.3f")]
        figures += [f"{stats.mean(pair[k] for pair in speeds):.1f}" for k in (0, 1)]
        lines.append([name, *map(str, cell[2:]), str(len(pairs)), *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def paired(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(ultralytics', ours) by seed, where both are there."""
    by = {(row["seed"], row["trainer"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    return [(by[s, "ultralytics"], by[s, "ours"]) for s in seeds if all((s, t) in by for t in TRAINERS)]


def spread(values: list[float], form: str = ".3f") -> str:
    """ "0.558 ± 0.004" (standard deviation over seeds), or the number alone where there is one seed."""
    return format(stats.mean(values), form) + (f" ± {stats.stdev(values):.3f}" if len(values) > 1 else "")


def write(out: Path, rows: list[dict[str, Any]]) -> str:
    """Both files; results of other cells that are there already stay."""
    path = out / f"{NAME}.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    merged = {key_of(row): row for row in [*kept, *rows]}
    rows = [merged[key] for key in sorted(merged)]
    hardware = ", ".join(sorted({f"{row['hardware']}, {row['threads']} threads" for row in rows}))
    document = f"""# Training from trained weights: `schedule=finetune` against ultralytics' own trainer

{hardware}. `python benchmarks/{NAME}.py model.weights=… dataset=… image_size=… --epochs … --seeds …`

{table(rows)}

- mAP50-95 of the validation images, both nets by this project's evaluator, after the epoch that each trainer calls the
  best. Mean over seeds ± standard deviation; the difference is ours minus ultralytics', seed by seed.
- data (training/validation images). Same weights, images, boxes, epochs, image size, batch and threads.
- images/s of the updates alone, without validation; median epoch, mean over seeds.
"""
    write_atomically(path, json.dumps({"rows": rows}, indent=1) + "\n")
    write_atomically(out / f"{NAME}.md", document)
    return document


def main() -> None:
    chosen = parsed()
    register()
    if chosen.one:
        config = configured(chosen, chosen.epochs[0], chosen.seeds[0])
        run_cell(config, chosen.one, folder_of(config, chosen.one, chosen.work))
        return
    configs = [configured(chosen, epochs, seed) for epochs in chosen.epochs for seed in chosen.seeds]
    trainings = [(config, trainer) for config in configs for trainer in TRAINERS]
    rows = [measure(chosen, *training) for training in track(trainings, "trainings", len(trainings))]
    print(write(chosen.out, rows))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as of run.py: key=value")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", type=Path, default=Path("outputs") / "finetune", help="trainings, kept")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", choices=TRAINERS, help=argparse.SUPPRESS)  # the process of one training
    chosen = parser.parse_intermixed_args()
    if not any(line.startswith("model.weights=") for line in chosen.overrides):
        parser.error("give model.weights=PATH, the checkpoint that both start from")
    return chosen


if __name__ == "__main__":
    main()
