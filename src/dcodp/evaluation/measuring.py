"""One detector on one data set: predictions, accuracy, size and speed, as the block that a record holds."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dcodp.config import EvaluationConfig
from dcodp.data import images as data_images
from dcodp.data import voc
from dcodp.data.types import Detections, DetectionSet, LabelledImage
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.errors import InputError
from dcodp.evaluation.coco_metric import Predictions, coco_statistics
from dcodp.evaluation.complexity import as_found, count_flops, count_parameters, device_of, latency_ms
from dcodp.evaluation.voc_metric import voc_ap
from dcodp.files import replacing
from dcodp.progress import track

Progress = Callable[[int, int], None]  # called with the images done and their total
VOC_CORNER = np.array([1.0, 1.0, 0.0, 0.0])  # from corner-at-0 coordinates to VOC's 1-based inclusive pixels
AREA_SINCE = 2010  # the year since which VOC's development kit takes the area under the curve


def evaluate(
    detector: Detector,
    detection_set: DetectionSet,
    image_size: int,
    settings: EvaluationConfig,
    progress: Progress | None = None,
    predictions: Predictions | None = None,
) -> dict[str, Any]:
    """The JSON-able block of a record: `accuracy` and `cost` in one; `predictions` spares their computation."""
    if predictions is None:
        predictions = predict(detector, detection_set, image_size, settings, progress)
    return {**accuracy(detection_set, predictions, settings), **cost(detector, image_size, settings)}


def fitness(
    detector: Detector,
    detection_set: DetectionSet,
    image_size: int,
    settings: EvaluationConfig,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The COCO statistics alone, by the fast backend: for validation between epochs.

    Without `progress` it is silent, because training shows a bar of its own.
    """
    predictions = predict(detector, detection_set, image_size, settings, progress or _silent)
    return coco_statistics(detection_set, predictions, backend="hotcoco")


def accuracy(detection_set: DetectionSet, predictions: Predictions, settings: EvaluationConfig) -> dict[str, Any]:
    """COCO statistics with `per_class`, how many images they rest on, and for images of VOC `voc_ap`."""
    block = coco_statistics(detection_set, predictions, settings.backend)
    block |= {"images": len(detection_set), "subset": detection_set.subset}
    if rule := voc_rule(detection_set):
        block["voc_ap"] = voc_statistics(detection_set, predictions, rule)
    return block


def cost(detector: Detector, image_size: int, settings: EvaluationConfig) -> dict[str, Any]:
    """`parameters`, `flops` (2 × multiply-accumulates, one image), `latency_ms` (median), `latency` (how measured)."""
    inputs = detector.example_inputs(image_size)
    with detector.most_work():
        latency = latency_ms(detector.network, inputs, settings.latency_runs)
        flops = count_flops(detector.network, inputs)
    return {
        "parameters": count_parameters(detector.network),
        "flops": flops,
        "latency_ms": latency.median_ms,
        "latency": dataclasses.asdict(latency),
    }


def predict(
    detector: Detector,
    detection_set: DetectionSet,
    image_size: int,
    settings: EvaluationConfig,
    progress: Progress | None = None,
) -> Predictions:
    """Detections of every image, in pixels of the original image; one batch of images in memory at a time.

    Runs on the device of the network's parameters, in eval mode; the network is left as it was. `progress` is told
    after every batch; without it a terminal shows a bar.
    """
    decode = DecodeSettings(settings.confidence, settings.iou, settings.max_detections, settings.multi_label)
    device, found = device_of(detector.network), {}
    batches = data_images.evaluation_batches(detection_set, image_size, settings.batch)
    if progress is None:
        batches = track(batches, f"detecting in {detection_set.name}", -(-len(detection_set) // settings.batch))
    with as_found(detector.network), torch.no_grad():
        detector.network.eval()
        for batch, labelled, boxes in batches:
            results = detector.predict(batch.to(device), decode)
            for image, letterbox, result in zip(labelled, boxes, results, strict=True):
                found[image.id] = _in_image(result, letterbox)
            if progress is not None:
                progress(len(found), len(detection_set))
    return found


def _silent(done: int, total: int) -> None:
    """Progress that nobody sees."""


def _in_image(result: Detections, letterbox: data_images.Letterbox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, scores, labels = (t.cpu().numpy() for t in (result.boxes.float(), result.scores.float(), result.labels))
    return letterbox.to_image(boxes).astype(np.float32), scores, labels.astype(np.int64)


def voc_rule(detection_set: DetectionSet) -> str | None:
    """The rule of `voc_ap` for the images tested: 11-point up to VOC2009, area where any is of VOC2010 or later.

    None where they are not all VOC's own. What counts is the development kit that each image lies in, whatever the
    set is called: 07+12 is tested on VOC2007, and a set of one's own may be named after VOC.
    """
    years = {_voc_year(image) for image in detection_set.images}
    if not years or None in years or detection_set.classes != voc.CLASSES or detection_set.category_ids:
        return None  # with category ids the boxes come from a COCO JSON file, which knows no difficult objects
    return "voc2007" if all(year < AREA_SINCE for year in years if year) else "area"


def _voc_year(image: LabelledImage) -> int | None:
    """2007 of VOC2007/JPEGImages/000001.jpg."""
    kit = re.fullmatch(r"VOC(\d{4})", image.path.parent.parent.name)
    return int(kit[1]) if kit and image.path.parent.name == "JPEGImages" else None


def voc_statistics(detection_set: DetectionSet, predictions: Predictions, rule: str | None = None) -> dict[str, Any]:
    """VOC's own AP by `rule` (None: `voc_rule`'s, else the area); None for a class without objects."""
    rule = rule or voc_rule(detection_set) or "area"
    found, truth = [np.zeros((0, 7))], [np.zeros((0, 7))]
    for number, image in enumerate(detection_set.images):
        truth.append(_voc_rows(number, image.labels, image.boxes, image.difficult, last=True))
        if image.id in predictions:
            boxes, scores, labels = predictions[image.id]
            found.append(_voc_rows(number, labels, boxes, scores, last=False))
    aps = voc_ap(np.concatenate(found), np.concatenate(truth), rule)
    per_class = {name: _number(aps.get(k, float("nan"))) for k, name in enumerate(detection_set.classes)}
    defined = [ap for ap in per_class.values() if ap is not None]
    return {"rule": rule, "map": float(np.mean(defined)) if defined else None, "per_class": per_class}


def _voc_rows(number: int, labels: np.ndarray, boxes: np.ndarray, extra: np.ndarray, last: bool) -> np.ndarray:
    """Rows of `voc_ap` [n, 7]: image, class, box, with the score before or the difficult flag after the box."""
    corners = boxes.astype(np.float64).reshape(-1, 4) + VOC_CORNER
    parts = [corners, extra] if last else [extra, corners]
    return np.column_stack([np.full(len(labels), number), labels, *parts])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def save_predictions(path: Path | str, predictions: Predictions) -> None:
    """Flat arrays in one .npz: ids (unicode), counts, boxes, scores, labels. Appears whole or not at all."""
    path = Path(path)
    columns = list(zip(*predictions.values(), strict=True)) or [[], [], []]
    boxes, scores, labels = columns
    with replacing(path) as stream:
        np.savez_compressed(
            stream,
            ids=np.array(list(predictions), dtype=np.str_),
            counts=np.array([len(s) for s in scores], dtype=np.int64),
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            scores=np.concatenate([np.zeros(0, np.float32), *scores]),
            labels=np.concatenate([np.zeros(0, np.int64), *labels]),
        )


def load_predictions(path: Path | str) -> Predictions:
    """What `save_predictions` wrote. Raises InputError where the file is absent or not such a file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, ends = arrays["ids"].tolist(), np.cumsum(arrays["counts"])
            parts = [np.split(arrays[key], ends)[:-1] for key in ("boxes", "scores", "labels")]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; evaluate the detector first") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} does not hold predictions ({error}); delete it and evaluate again") from error
    return dict(zip(ids, zip(*parts, strict=True), strict=True))
