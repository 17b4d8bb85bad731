"""COCO statistics: both backends agree, and small cases have the value worked out by hand."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError
from dcodp.evaluation.coco_metric import STATISTICS, coco_statistics

BACKENDS = ("pycocotools", "hotcoco")
SQUARE, FAR, INSIDE_FAR = (10, 10, 60, 60), (100, 100, 180, 180), (110, 110, 140, 140)


def image(name, boxes=(), labels=(), difficult=(), crowd=()):
    n = len(boxes)
    flags = [np.array([k in which for k in range(n)], bool) for which in (difficult, crowd)]
    boxes = np.array(boxes, np.float32).reshape(n, 4)
    return LabelledImage(name, Path(name), 200, 200, boxes, np.array(labels, np.int64), *flags)


def dataset(*images, classes=("cat", "dog"), category_ids=()):
    return DetectionSet("made", "val", classes, images, None, category_ids)


def found(*rows):
    """Rows (score, label, box) → boxes, scores, labels."""
    boxes = np.array([row[2] for row in rows], np.float32).reshape(len(rows), 4)
    return boxes, np.array([r[0] for r in rows], np.float32), np.array([r[1] for r in rows], np.int64)


def flat(statistics):
    per_class = {f"{c}/{k}": v for c, values in statistics["per_class"].items() for k, v in values.items()}
    return {key: statistics[key] for key in STATISTICS} | per_class


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_perfect_detector(backend):
    images = dataset(image("a", [SQUARE], [0]), image("b", [FAR], [0]), image("empty"))
    statistics = coco_statistics(images, {"a": found((0.9, 0, SQUARE)), "b": found((0.8, 0, FAR))}, backend)
    assert statistics["map50_95"] == pytest.approx(1.0)
    assert statistics["ap_medium"] == statistics["ar1"] == statistics["per_class"]["cat"]["map50"] == pytest.approx(1.0)
    assert statistics["per_class"]["dog"] == {"map50_95": None, "map50": None}
    assert statistics["ap_large"] is None  # 50² and 80² pixels are both medium


@pytest.mark.parametrize("backend", BACKENDS)
def test_iou_thresholds_count_singly(backend):
    shifted = (10, 10, 60, 46)  # IoU 36/50 = 0.72: right at 0.5, 0.55, …, 0.7
    statistics = coco_statistics(dataset(image("a", [SQUARE], [1])), {"a": found((0.9, 1, shifted))}, backend)
    assert statistics["map50"] == pytest.approx(1.0)
    assert statistics["ap75"] == 0.0
    assert statistics["map50_95"] == statistics["per_class"]["dog"]["map50_95"] == pytest.approx(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_difficult_objects_are_ignored_but_hide_nothing_else(backend):
    images = dataset(image("a", [SQUARE, FAR], [0, 0], difficult=[1]))
    easy, on_difficult, inside = (0.5, 0, SQUARE), (0.9, 0, FAR), (0.8, 0, INSIDE_FAR)
    assert coco_statistics(images, {"a": found(easy)}, backend)["map50"] == pytest.approx(1.0)
    assert coco_statistics(images, {"a": found(easy, on_difficult)}, backend)["map50"] == pytest.approx(1.0)
    assert coco_statistics(images, {"a": found(easy, inside)}, backend)["map50"] == pytest.approx(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_detections_inside_a_crowd_are_ignored(backend):
    images = dataset(image("a", [SQUARE, FAR], [0, 0], crowd=[1]))
    detections = {"a": found((0.9, 0, INSIDE_FAR), (0.8, 0, FAR), (0.5, 0, SQUARE))}
    assert coco_statistics(images, detections, backend)["map50"] == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_detections_are_zero(backend):
    images = dataset(image("a", [SQUARE], [0]))
    for detections in ({}, {"a": found()}):
        statistics = coco_statistics(images, detections, backend)
        assert statistics["map50_95"] == statistics["ar100"] == statistics["per_class"]["cat"]["map50"] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_objects_are_undefined(backend):
    statistics = coco_statistics(dataset(image("a")), {"a": found((0.9, 0, SQUARE))}, backend)
    assert set(flat(statistics).values()) == {None}


@pytest.mark.parametrize("backend", BACKENDS)
def test_category_ids_need_not_be_in_class_order(backend):
    images = dataset(image("a", [SQUARE, FAR], [0, 1]), category_ids=(90, 7))
    statistics = coco_statistics(images, {"a": found((0.9, 0, SQUARE))}, backend)
    assert statistics["per_class"]["cat"]["map50"] == pytest.approx(1.0)
    assert statistics["per_class"]["dog"]["map50"] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_go_by_the_outline_where_it_is_known(backend):
    whole = image("a", [SQUARE], [0])
    outlined = dataclasses.replace(whole, area=np.array([1000.0], np.float32))  # under 32², the box is 50²
    detections = {"a": found((0.9, 0, SQUARE))}
    for images, small, medium in ((dataset(whole), None, 1.0), (dataset(outlined), 1.0, None)):
        statistics = coco_statistics(images, detections, backend)
        assert (statistics["ap_small"], statistics["ap_medium"]) == (pytest.approx(small), pytest.approx(medium))


def random_case(seed, count=25, classes=4):
    """Images with crowds, difficult objects, no objects, no detections; tied scores; one class without objects."""
    rng = np.random.default_rng(seed)
    images, detections = [], {}
    for k in range(count):
        n, m = rng.integers(0, 6), rng.integers(0, 30)
        corner = rng.random((n, 2)) * 200
        boxes = np.concatenate([corner, corner + rng.random((n, 2)) ** 2 * 180 + 2], 1)
        labels = rng.integers(0, classes - 1, n)
        images.append(
            image(str(k), boxes, labels, np.flatnonzero(rng.random(n) < 0.15), np.flatnonzero(rng.random(n) < 0.15))
        )
        if n:
            near = rng.integers(0, n, m)
            jitter = boxes[near] + rng.normal(0, 4, (m, 4))
            jitter[:, 2:] = np.maximum(jitter[:, 2:], jitter[:, :2])
            guessed = np.where(rng.random(m) < 0.8, labels[near], rng.integers(0, classes, m))
            detections[str(k)] = (jitter.astype(np.float32), np.round(rng.random(m), 1).astype(np.float32), guessed)
    return dataset(*images, classes=tuple("abcd"), category_ids=(3, 10, 6, 2)), detections


@pytest.mark.parametrize("seed", range(8))
def test_backends_agree(seed):
    images, detections = random_case(seed)
    slow, fast = (flat(coco_statistics(images, detections, backend)) for backend in BACKENDS)
    assert {k for k, v in slow.items() if v is None} == {k for k, v in fast.items() if v is None}
    for key, value in slow.items():
        assert value is None or fast[key] == pytest.approx(value, abs=1e-9), key
    assert 0.05 < (slow["map50"] or 0) < 0.95


@pytest.mark.parametrize("backend", BACKENDS)
def test_prints_nothing(backend, capfd):
    coco_statistics(*random_case(0, count=4), backend)
    assert capfd.readouterr() == ("", "")


def test_bad_input_is_named():
    images = dataset(image("a", [SQUARE], [0]))
    with pytest.raises(InputError, match="backend='fast'"):
        coco_statistics(images, {}, "fast")
    with pytest.raises(InputError, match="image 'z'"):
        coco_statistics(images, {"z": found((0.9, 0, SQUARE))})
