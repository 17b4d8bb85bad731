"""Average precision as the PASCAL VOC development kit defines it, difficult objects included.

Everingham et al., "The PASCAL Visual Object Classes Challenge", sections 4.2 (VOC2007: mean of the precision at 11
recall levels) and, since VOC2010, the area under the monotone envelope of the precision-recall curve.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcodp.errors import InputError

IOU_THRESHOLD = 0.5
# k × 0.1 in double precision: where recall is exactly 3/10, 6/10 or 7/10, the level 0.1·k lies one rounding above it
# and that point does not count. Published VOC2007 numbers were computed with such levels.
RECALL_LEVELS = np.arange(11) * 0.1


@dataclass(frozen=True)
class _Detections:
    image: np.ndarray  # [n] int64, index of the image
    label: np.ndarray  # [n] int64, class index
    score: np.ndarray  # [n] float64
    box: np.ndarray  # [n, 4] float64


@dataclass(frozen=True)
class _Objects:
    image: np.ndarray  # [m] int64
    label: np.ndarray  # [m] int64
    box: np.ndarray  # [m, 4] float64
    difficult: np.ndarray  # [m] bool


def voc_ap(
    detections: Iterable[Sequence[Any]], ground_truth: Iterable[Sequence[Any]], rule: str = "voc2007"
) -> dict[int, float]:
    """Average precision of each class, as {class index: AP in 0…1}.

    `detections` are rows (image id, class index, score, xmin, ymin, xmax, ymax), `ground_truth` rows (image id, class
    index, xmin, ymin, xmax, ymax, difficult), as tuples or as one array with seven columns; image ids are any hashable
    values. Boxes are in VOC pixel coordinates, 1-based and inclusive, so that a width is xmax - xmin + 1. `rule` is
    "voc2007" (11 recall levels) or "area" (area under the monotone envelope).

    A detection is assigned to the object of its class and image that it overlaps most. It is a hit where the IoU
    reaches 0.5 and no higher-scored detection hit the same object, it is left out where that object is difficult, and
    it is a false positive otherwise. Equal scores keep the order in which they were given. Every class that occurs in
    either list has an entry, which is NaN where the class has no object that counts. Raises InputError for an unknown
    rule and for rows of another length.
    """
    if rule not in ("voc2007", "area"):
        raise InputError(f"rule={rule!r} is not known; use 'voc2007' or 'area'")
    images: dict[Hashable, int] = {}
    found, objects = _read_detections(detections, images), _read_objects(ground_truth, images)
    order = np.lexsort((found.image, found.label))  # by class, then by image
    found = _Detections(found.image[order], found.label[order], found.score[order], found.box[order])
    overlap, best = _best_overlaps(found, objects)
    summarise = _eleven_point if rule == "voc2007" else _area
    result = {}
    for label in np.union1d(found.label, objects.label):
        rows = slice(*np.searchsorted(found.label, [label, label + 1]))
        by_score = np.lexsort((order[rows], -found.score[rows]))  # of equal scores, the first given
        hit, counts = _judge(overlap[rows][by_score], best[rows][by_score], objects.difficult)
        positives = int(np.sum(~objects.difficult[objects.label == label]))
        result[int(label)] = summarise(*_curve(hit, counts, positives)) if positives else float("nan")
    return result


def _best_overlaps(found: _Detections, objects: _Objects) -> tuple[np.ndarray, np.ndarray]:
    """For each detection, sorted by class and image: the highest IoU [n] (-1: no object there) and whose it is [n]."""
    overlap, best = np.full(len(found.label), -1.0), np.full(len(found.label), -1)
    span = 1 + max(found.image.max(initial=0), objects.image.max(initial=0))
    found_key, object_key = found.label * span + found.image, objects.label * span + objects.image
    order = np.argsort(object_key, kind="stable")
    keys, starts = np.unique(object_key[order], return_index=True)
    first, last = np.searchsorted(found_key, keys), np.searchsorted(found_key, keys, side="right")
    for lo, hi, members in zip(first, last, np.split(order, starts)[1:], strict=True):
        if hi > lo:
            iou = _iou(found.box[lo:hi], objects.box[members])
            overlap[lo:hi], best[lo:hi] = iou.max(1), members[iou.argmax(1)]
    return overlap, best


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [n, 4], b [m, 4], inclusive pixel corners → [n, m]."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(bottom_right - top_left + 1, 0, None).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2] + 1).prod(1), (b[:, 2:] - b[:, :2] + 1).prod(1)
    return intersection / (area_a[:, None] + area_b[None] - intersection)


def _judge(overlap: np.ndarray, best: np.ndarray, difficult: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detections of one class, highest score first → which are hits [n], which count at all [n]."""
    matched = overlap >= IOU_THRESHOLD
    ignored = np.zeros(len(best), bool)
    ignored[matched] = difficult[best[matched]]
    candidates = np.flatnonzero(matched & ~ignored)
    hit = np.zeros(len(best), bool)
    hit[candidates[np.unique(best[candidates], return_index=True)[1]]] = True  # the first of each object
    return hit, ~ignored


def _curve(hit: np.ndarray, counts: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall [n] and precision [n] after each detection, highest score first."""
    hits, counted = np.cumsum(hit), np.cumsum(counts)
    return hits / positives, hits / np.maximum(counted, 1)


def _eleven_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """The mean over the recall levels of the best precision at that recall or more, 0 where it is never reached."""
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in RECALL_LEVELS]))


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    """The area under the precision made non-increasing from the right."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _read_detections(rows: Iterable[Sequence[Any]], images: dict[Hashable, int]) -> _Detections:
    image, label, *numbers = _columns(rows, "detections", images)
    score, *corners = numbers
    return _Detections(image, label.astype(np.int64), score, np.stack(corners, 1))


def _read_objects(rows: Iterable[Sequence[Any]], images: dict[Hashable, int]) -> _Objects:
    image, label, *numbers = _columns(rows, "ground_truth", images)
    *corners, difficult = numbers
    return _Objects(image, label.astype(np.int64), np.stack(corners, 1), difficult.astype(bool))


def _columns(rows: Iterable[Sequence[Any]], what: str, images: dict[Hashable, int]) -> list[np.ndarray]:
    """Seven columns, the first as image indices (new ids are added to `images`), the others float64."""
    table = rows if isinstance(rows, np.ndarray) else list(rows)
    if (wrong := next((len(row) for row in table if len(row) != 7), None)) is not None:
        raise InputError(f"a row of {what} has {wrong} values; give 7 in each")
    columns = table.T if isinstance(table, np.ndarray) else list(zip(*table, strict=True))
    if not len(table):
        columns = [[]] * 7
    ids = np.array([images.setdefault(image, len(images)) for image in columns[0]], np.int64)
    return [ids, *(np.asarray(column, np.float64) for column in columns[1:])]
