"""Made-up records: the report needs no training.

By hand, a report of everything that a page can hold, from made-up records and those of the demonstration:

    python tests/report/made_up.py FOLDER        # then open FOLDER/report.html
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dcodp.config import Config, to_dict
from dcodp.data.voc import CLASSES
from dcodp.records import Record, read_study, record_of, run_folder, write_record
from dcodp.report.build import Report, render_report
from dcodp.report.pictures import Drawn, draw_pictures

ROOT = Path(__file__).resolve().parents[2]
SPARSITY = {"slimming": 1e-4}  # what conf/importance/NAME.yaml asks of the dense net's training

SIZES = {"dense": (3_000_000, 8_000_000_000, 40.0), "pruned": (750_000, 2_400_000_000, 20.0)}


def block(ap: float, stage: str = "dense", **changes: Any) -> dict[str, Any]:
    """An evaluation block with mAP50-95 = `ap` and everything else in proportion."""
    parameters, flops, latency_ms = SIZES["dense" if stage == "dense" else "pruned"]
    return {
        "map50": ap * 1.5,
        "map50_95": ap,
        "ap75": ap * 1.1,
        "ap_small": ap * 0.5,
        "ap_medium": ap,
        "ap_large": -1,
        "per_class": {
            "bird": {"map50": ap * 1.4, "map50_95": ap * 0.9},
            "cat": {"map50": ap * 1.6, "map50_95": ap * 1.1},
        },
        "parameters": parameters,
        "flops": flops,
        "latency_ms": latency_ms,
        "images": 448,
        "subset": True,
        "latency": {"threads": 1, "runs": 20, "device": "Test CPU", "median_ms": latency_ms},
        **changes,
    }


def made_up(
    model: str = "yolov8n",
    dataset: str = "voc2007",
    ratio: float = 0.5,
    seed: int = 0,
    aps: tuple[float | None, float | None, float | None] = (0.4, 0.01, 0.38),
    importance: str = "dcodp",
    interlayer: bool = True,
    status: str = "done",
    **changes: Any,
) -> Record:
    """One cell. `aps`: mAP50-95 dense, pruned, fine-tuned; `changes`: other configuration keys, or `finetuned=…` blocks
    as they are to be."""
    config = to_dict(Config())
    config["model"] |= {"name": model, "family": model[:6]}
    config["dataset"] |= {"name": dataset, "published_train": 5011}
    config["importance"]["name"] = importance
    config["train"]["sparsity"] = SPARSITY.get(importance, 0.0)
    config |= {"ratio": ratio, "seed": seed, "interlayer": interlayer}
    for key in set(changes) & set(config):
        config[key] = changes[key]
    stages = dict(zip(("dense", "pruned", "finetuned"), aps, strict=True))
    blocks = {stage: None if ap is None else block(ap, stage) for stage, ap in stages.items()}
    blocks |= {stage: changes[stage] for stage in set(changes) & set(blocks)}
    coupled = "" if interlayer else "-uncoupled"
    run_id = changes.get("run_id", f"{model}-{dataset}-{importance}{coupled}-{ratio}-{seed}")
    provenance = {
        "code": {"version": "0.1.0", "git": "abc123"},
        "libraries": {"torch": "2.15.0"},
        "device": "Test CPU",
        "seed": seed,
        "data_fingerprint": {"train": "beef", "val": "feed"},
        "images": {"train": 5011, "val": 448},
        "pruning": {"channels_removed": ratio},
        "wall_seconds": {"dense": 1.5},
    }
    tree = {"run_id": run_id, "status": status, "config": config, **blocks, "provenance": provenance}
    return record_of(tree, Path("made_up"))


# --- a folder of results that fills every table and figure ----------------------------------------------------------

# dense mAP50-95, parameters, FLOPs, latency; AP points lost at 70 % of the channels
DETECTORS = {
    "yolov8n": ("yolov8", 0.42, 3_010_000, 8_100_000_000, 38.0, 0.09),
    "yolov7": ("yolov7", 0.55, 36_600_000, 104_000_000_000, 410.0, 0.035),
    "faster_rcnn": ("faster_rcnn", 0.49, 41_400_000, 180_000_000_000, 900.0, 0.12),
}
IMAGES = {"voc2007": (448, 4952), "voc2012": (5823, 5823), "coco2017": (500, 5000)}  # tested, published
CRITERIA = {"slimming": 0.04, "thinet": 0.02, "hrank": 0.03, "random": 0.06, "dcodp": 0.0}  # lost beside dcodp's loss
ODD = "Größe_100% & #1 − <b>{x}^2~ \\ $5 a/b -- |"
COCO_CLASSES = tuple(f"class {i}" for i in range(80))


def full_block(model: str, dataset: str, ap: float, kept: float, chance: random.Random) -> dict[str, Any]:
    """As the evaluation writes it, with per-class and per-size values in proportion to `ap` (0 to 1).

    kept: share of the channels that is left; sizes and latency follow from it.
    """
    _, _, parameters, flops, latency, _ = DETECTORS.get(model, DETECTORS["yolov8n"])
    classes = COCO_CLASSES if dataset == "coco2017" else CLASSES if dataset in IMAGES else (ODD, "plain")
    per_class = {name: {"map50": min(1.0, 1.5 * ap * chance.uniform(0.8, 1.2)), "map50_95": ap} for name in classes}
    tested, published = IMAGES.get(dataset, (12, 12))
    voc = {"rule": "voc2007" if dataset == "voc2007" else "area", "map": 1.45 * ap, "per_class": {}}
    return {
        **{"map50": 1.5 * ap, "map50_95": ap, "ap75": 1.1 * ap, "per_class": per_class},
        **{"ap_small": 0.5 * ap, "ap_medium": ap, "ap_large": 1.3 * ap if dataset == "coco2017" else -1},
        **{"parameters": int(parameters * kept**2), "flops": int(flops * kept**2)},
        **{"latency_ms": latency * (0.3 + 0.7 * kept), "images": tested, "subset": tested < published},
        "latency": {"threads": 1, "runs": 20, "device": "Made-up CPU", "median_ms": latency},
        **({"voc_ap": voc} if dataset.startswith("voc") else {}),
    }


def full_cell(model: str, dataset: str, ratio: float, seed: int = 0, lost: float = 0.0, **changes: Any) -> Record:
    """One cell of the paper's; lost: AP beyond what the ratio costs anyway; changes: as for `made_up`."""
    chance = random.Random(f"{model} {dataset} {ratio} {seed} {changes}")
    family, ap, *_, cost = DETECTORS.get(model, ("yolov8", *DETECTORS["yolov8n"][1:]))
    after = ap - cost * (ratio / 0.7) ** 2 - lost + chance.uniform(-0.003, 0.003) + 0.004 * (ratio < 0.4)
    blocks = {
        "dense": full_block(model, dataset, ap, 1.0, random.Random(f"{model} {dataset}")),
        "pruned": full_block(model, dataset, 0.01 * (1 - ratio), 1 - ratio, chance),
        "finetuned": full_block(model, dataset, after, 1 - ratio, chance),
    }
    record = made_up(model, dataset, ratio, seed, **(blocks | changes))
    record.config["model"] |= {"family": family, "weights": f"weights/{model}.pt"}
    record.config["dataset"]["published_train"] = None if dataset == "voc2012" else 118287
    record.provenance["code"]["git"] = "made-up"
    record.provenance["pruning"] |= {
        "groups": 3,
        "channels": 112,
        "layers_frozen": {"head.out": "an output of the model (the model)"},
        "coupling": {
            "stem": {"channels": 16, "layers": ["stem"]},
            "body.0.conv1": {"channels": 64, "layers": ["body.0.conv1", "body.0.conv2", "body.1.conv2"]},
            "neck": {"channels": 32, "layers": ["neck"]},
        },
    }
    return record


def full_records() -> Iterator[Record]:
    """Three detectors on VOC2007 (10 to 70 %), VOC2012 and COCO, the ablation with three seeds, a set with odd names;
    some cells are missing, one has failed, one was stopped before fine-tuning."""
    for model in DETECTORS:
        for percent in range(10, 80, 10):
            if (model, percent) != ("faster_rcnn", 70):
                yield full_cell(model, "voc2007", percent / 100)
    for model in ("yolov8n", "yolov7"):
        for ratio in (0.2, 0.5):
            yield full_cell(model, "voc2012", ratio)
    for model in DETECTORS:
        for ratio in (0.2, 0.5, 0.7):
            yield full_cell(model, "coco2017", ratio)
    for importance, lost in CRITERIA.items():
        for interlayer in (False, True):
            for seed in range(3):
                if (importance, interlayer, seed) != ("dcodp", True, 0) and (importance, interlayer) != ("hrank", True):
                    extra = 0.0 if interlayer else 0.01
                    choice = {"importance": importance, "interlayer": interlayer}
                    yield full_cell("yolov8n", "voc2007", 0.5, seed, lost + extra, **choice)
    yield full_cell(f"net_{ODD}", f"set_{ODD}", 0.5, run_id="odd")
    failed = full_cell("yolov7", "voc2012", 0.7, status="failed", finetuned=None)
    failed.error = "RuntimeError: <script>document.title = 'not escaped'</script>"
    yield failed
    yield full_cell("yolov8n", "voc2012", 0.7, status="interrupted", pruned=None, finetuned=None)


def write_results(folder: Path, demonstration: bool = True) -> None:
    """FOLDER/runs with `full_records`, pictures and plans of some, the records of the demonstration, and a card."""
    for record in full_records():
        write_record(run_folder(folder, record.run_id), record)
    for run_id in ("yolov8n-voc2007-dcodp-0.5-0", "yolov7-coco2017-dcodp-0.2-0"):
        _draw(folder, run_id)
        kept = {"stem": list(range(8)), "body.0.conv1": list(range(32)), "neck": list(range(16))}
        (run_folder(folder, run_id).plan).write_text(json.dumps({"format": 1, "groups": kept}))
    if demonstration:
        for record in read_study(ROOT / "results" / "demo"):
            write_record(run_folder(folder, record.run_id), record)
    write_card(folder / "small")


def write_card(folder: Path, **changes: Any) -> None:
    """FOLDER/card.json: the committed one of `dcodp prune`, but for `changes`."""
    tree = json.loads((ROOT / "results" / "prune" / "card.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps(tree | changes))


def _draw(folder: Path, run_id: str) -> None:
    """Two images of coloured boxes, and the boxes as detections."""
    paths, found = [], {"dense": [], "pruned": [], "finetuned": []}
    for i, box in enumerate([(30, 40, 180, 160), (90, 20, 280, 210)]):
        paths.append(folder / f"image-{i}.png")
        image = Image.new("RGB", (320, 240), "#7f9f7f")
        ImageDraw.Draw(image).rectangle(box, fill="#bb5533")
        image.save(paths[-1])
        nothing = Drawn(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
        seen = Drawn(np.array([box], float), np.array([0.8]), np.array([i]))
        for stage in found:
            found[stage].append(nothing if stage == "pruned" else seen)
    draw_pictures(run_folder(folder, run_id).pictures, paths, found, CLASSES)


def render(folder: Path) -> Report:
    write_results(folder)
    return render_report(folder, folder, ROOT / "experiments")


if __name__ == "__main__":
    print(render(Path(sys.argv[1])).page)
