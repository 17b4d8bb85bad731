"""COCO detection metrics of a set of detections, by pycocotools or by its faster equivalent hotcoco.

Definitions: Lin et al., "Microsoft COCO: Common Objects in Context", and its evaluation code: 10 IoU thresholds from
0.5 to 0.95, 101 recall levels, at most 100 detections of a class in an image; small is an area under 32², large one
over 96² pixels. The area of an object is that of its outline where the data set gives it, as COCO does, else its box's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from dcodp.data.types import DetectionSet
from dcodp.errors import InputError

STATISTICS = ("map50_95", "map50", "ap75", "ap_small", "ap_medium", "ap_large",
              "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")  # fmt: skip
# An area outside every range makes COCO's matching ignore the object much as VOC ignores difficult ones: its IoU is the
# usual one and its match is neither hit nor miss (a second match is a miss, unlike VOC). `iscrowd` would not do: it
# compares with the detection's area alone and so swallows small false positives; and pycocotools overwrites `ignore`.
IGNORED_AREA = -1.0

# image id → boxes [n, 4] (xmin, ymin, xmax, ymax in pixels of the original image, its corner at (0, 0)) float32,
# scores [n] float32 and class indices [n] int64
Predictions = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def coco_statistics(
    detection_set: DetectionSet, detections: Predictions, backend: str = "pycocotools"
) -> dict[str, Any]:
    """The 12 COCO statistics by name, and `per_class` {class name: {"map50_95", "map50"}}, all in 0…1.

    An image without an entry in `detections` has none. A statistic without any object that counts is None. Difficult
    objects (VOC) are ignored, crowds as COCO does. Both backends give the same numbers. Raises InputError for an
    unknown backend or image id.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend={backend!r} is not known; use one of {', '.join(BACKENDS)}")
    categories = _category_ids(detection_set)
    results = _results(detection_set, detections, categories)
    with contextlib.redirect_stdout(io.StringIO()):
        stats, precision, order = BACKENDS[backend](_ground_truth(detection_set, categories), results)
    place = {category: k for k, category in enumerate(order)}
    per_class = {
        name: {"map50_95": _mean(precision[:, :, k]), "map50": _mean(precision[0, :, k])}
        for name, k in zip(detection_set.classes, (place[c] for c in categories), strict=True)
    }
    return {**{key: _defined(value) for key, value in zip(STATISTICS, stats, strict=True)}, "per_class": per_class}


def _category_ids(detection_set: DetectionSet) -> tuple[int, ...]:
    return detection_set.category_ids or tuple(range(1, len(detection_set.classes) + 1))


def _ground_truth(detection_set: DetectionSet, categories: tuple[int, ...]) -> dict[str, Any]:
    """The data set in COCO's annotation format, images and annotations numbered from 1."""
    annotations = []
    for number, image in enumerate(detection_set.images, 1):
        boxes = _xywh(image.boxes)
        areas = np.where(image.difficult, IGNORED_AREA, boxes[:, 2] * boxes[:, 3] if image.area is None else image.area)
        for box, area, label, crowd in zip(boxes, areas, image.labels, image.crowd, strict=True):
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(categories[label]),
                "bbox": box.tolist(),
                "area": float(area),
                "iscrowd": int(crowd),
            })  # fmt: skip
    return {
        "info": {},
        "images": [{"id": n, "width": i.width, "height": i.height} for n, i in enumerate(detection_set.images, 1)],
        "annotations": annotations,
        "categories": [{"id": int(c), "name": name} for c, name in zip(categories, detection_set.classes, strict=True)],
    }


def _results(detection_set: DetectionSet, detections: Predictions, categories: tuple[int, ...]) -> np.ndarray:
    """Rows of image number, x, y, w, h, score, category id: [n, 7] float64."""
    numbers = {image.id: n for n, image in enumerate(detection_set.images, 1)}
    if (unknown := next((name for name in detections if name not in numbers), None)) is not None:
        raise InputError(f"detections name image {unknown!r}, which {detection_set.name} {detection_set.split} has not")
    tables = [np.zeros((0, 7))]
    for name, (boxes, scores, labels) in detections.items():
        image = np.full(len(scores), numbers[name])
        tables.append(np.column_stack([image, _xywh(boxes), scores, np.asarray(categories)[labels]]))
    return np.concatenate(tables)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """[n, 4] corners → [n, 4] corner and size, float64."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _pycocotools(truth: dict[str, Any], results: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    expected: Any = COCO()
    expected.dataset = truth
    expected.createIndex()
    found = expected.loadRes(results) if len(results) else COCO()
    return _run(COCOeval(expected, found, "bbox"))


def _hotcoco(truth: dict[str, Any], results: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    from hotcoco import COCO, COCOeval

    expected = COCO(truth)
    return _run(COCOeval(expected, expected.load_res(results), "bbox"))


def _run(evaluation: Any) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The 12 statistics [12], the precisions over all areas [10 thresholds, 101 recalls, classes], the classes' ids."""
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return np.asarray(evaluation.stats), precision, list(evaluation.params.catIds)


BACKENDS = {"pycocotools": _pycocotools, "hotcoco": _hotcoco}


def _mean(precision: np.ndarray) -> float | None:
    """COCO marks a precision that is undefined, for want of objects, with -1."""
    return float(precision.mean()) if (precision > -1).all() else None


def _defined(value: float) -> float | None:
    return float(value) if value > -1 else None
