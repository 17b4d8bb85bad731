"""A training by ultralytics' own trainer, on our images and boxes."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from clock import Clock
from matplotlib import font_manager

from dcodp import _ultralytics
from dcodp.data.types import DetectionSet, LabelledImage


def train(weights: str, sets: dict[str, DetectionSet], folder: Path, **settings: Any) -> tuple[Path, Clock]:
    """Its best.pt and the time it took; `sets` are "train" and "val", `settings` those of its trainer."""
    place_font(folder.parent)
    _ultralytics.prepare()
    from ultralytics import YOLO

    shutil.rmtree(folder, ignore_errors=True)
    data = export(sets, folder / "data")
    clock, threads = Clock(), torch.get_num_threads()
    model = YOLO(weights)
    model.add_callback("on_train_start", lambda _: torch.set_num_threads(threads))  # it leaves one core aside
    model.add_callback("on_train_epoch_start", clock.start)
    model.add_callback("on_train_epoch_end", clock.stop)
    model.train(
        data=str(data), device="cpu", cache="ram", plots=False, project=str(folder), name="training", exist_ok=True,
        **settings,
    )  # fmt: skip
    return folder / "training" / "weights" / "best.pt", clock


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


def lines_of(image: LabelledImage) -> list[str]:
    """ "class cx cy w h" in fractions of the image; crowds are left out, as our training leaves them out."""
    size = torch.tensor([image.width, image.height] * 2)
    boxes = torch.from_numpy(image.boxes).reshape(-1, 4).double() / size
    boxes = boxes.clamp(0, 1)[~torch.from_numpy(image.crowd)]
    labels = image.labels[~image.crowd]
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rows = torch.cat([centre, sides], 1).tolist()
    return [f"{label} {' '.join(f'{v:.6f}' for v in row)}\n" for label, row in zip(labels, rows, strict=True)]
