"""What the dense and the small net find in the same images, side by side."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dcodp.data.images import letterbox, read_image
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.files import write_atomically
from dcodp.report.pictures import Drawn, draw_pictures
from dcodp.yolo.images import place_font

SURE = 0.25  # confidence from which a detection is drawn
WIDTH = 400  # pixels of one picture


def draw(path: Path, images: Sequence[Path], nets: Mapping[str, UltralyticsNet], size: int) -> None:
    """One row for each image, one column for each net ("dense", "pruned", …), as a PNG."""
    first = next(iter(nets.values()))
    if first.network.task == "detect":  # type: ignore[union-attr]
        found = {stage: [_boxes(net, image, size) for image in images] for stage, net in nets.items()}
        draw_pictures(path, list(images), found, first.classes, SURE)
    else:
        columns = [_plotted(net, images, size) for net in nets.values()]
        write_atomically(path, _grid(columns))


@torch.no_grad()
def _boxes(net: UltralyticsNet, image: Path, size: int) -> Drawn:
    square, place = letterbox(read_image(image), size)
    batch = torch.from_numpy(square).permute(2, 0, 1)[None].to(next(net.network.parameters()).device)
    (found,) = net.predict(batch, DecodeSettings(confidence=SURE))
    boxes, scores, labels = (t.float().cpu().numpy() for t in (found.boxes, found.scores, found.labels))
    return Drawn(place.to_image(boxes), scores, labels.astype(int))


def _plotted(net: UltralyticsNet, images: Sequence[Path], size: int) -> list[np.ndarray]:
    """Masks, keypoints, turned boxes and class names, as ultralytics draws them: RGB [H, W, 3] each."""
    place_font()
    from ultralytics.models import yolo

    kinds: dict[str, Any] = {
        "segment": yolo.segment.SegmentationPredictor,
        "pose": yolo.pose.PosePredictor,
        "obb": yolo.obb.OBBPredictor,
        "classify": yolo.classify.ClassificationPredictor,
    }
    task = str(net.network.task)  # type: ignore[union-attr]
    device = next(net.network.parameters()).device
    arguments = {"task": task, "mode": "predict", "imgsz": size, "conf": SURE, "save": False, "verbose": False}
    predictor = kinds[task](
        overrides={**arguments, "device": "cpu" if device.type == "cpu" else str(device.index or 0)}
    )
    predictor.setup_model(copy.deepcopy(net.network), verbose=False)
    return [result.plot()[..., ::-1] for result in predictor(source=[str(image) for image in images])]


def _grid(columns: Sequence[Sequence[np.ndarray]]) -> bytes:
    rows = [[_scaled(column[k]) for column in columns] for k in range(len(columns[0]))]
    heights = [max(cell.height for cell in row) for row in rows]
    grid = Image.new("RGB", (WIDTH * len(columns), sum(heights)), "white")
    for k, row in enumerate(rows):
        for column, cell in enumerate(row):
            grid.paste(cell, (column * WIDTH, sum(heights[:k])))
    stream = io.BytesIO()
    grid.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _scaled(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), Image.Resampling.LANCZOS)
