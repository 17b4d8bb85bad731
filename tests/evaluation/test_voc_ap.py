"""VOC average precision against values worked out by hand and against a slow transcription of the rules."""

import math
from itertools import groupby

import numpy as np
import pytest

from dcodp.errors import InputError
from dcodp.evaluation import voc_ap

SQUARE = (1.0, 1.0, 10.0, 10.0)  # 10 × 10 inclusive pixels
FAR = (101.0, 101.0, 110.0, 110.0)


def found(score, box=SQUARE, image="a", label=0):
    return (image, label, score, *box)


def there(box=SQUARE, image="a", label=0, difficult=0):
    return (image, label, *box, difficult)


@pytest.mark.parametrize("rule", ["voc2007", "area"])
def test_the_only_object_is_found(rule):
    assert voc_ap([found(0.5)], [there()], rule) == {0: pytest.approx(1.0)}


def test_precision_falls_between_two_hits():
    detections = [found(0.9), found(0.8, image="b"), found(0.7, FAR)]
    truth = [there(), there(FAR)]
    # recall 1/2, 1/2, 1 at precision 1, 1/2, 2/3: levels 0…0.5 see 1, levels 0.6…1 see 2/3
    assert voc_ap(detections, truth, "voc2007")[0] == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert voc_ap(detections, truth, "area")[0] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_second_detection_of_an_object_is_a_false_positive():
    # by score: hit, duplicate, hit
    detections = [found(0.9), found(0.8), found(0.7, FAR)]
    assert voc_ap(detections, [there(), there(FAR)], "area")[0] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_duplicate_is_not_passed_on_to_the_next_best_object():
    neighbour = (1.0, 1.0, 10.0, 8.0)
    detections = [found(0.9), found(0.8)]  # both overlap SQUARE most; IoU with the neighbour is 0.8
    assert voc_ap(detections, [there(), there(neighbour)], "area")[0] == pytest.approx(0.5)


def test_detections_of_difficult_objects_are_neither_hit_nor_miss():
    detections = [found(0.9, FAR), found(0.8, FAR), found(0.7)]
    truth = [there(), there(FAR, difficult=1)]
    for rule in ("voc2007", "area"):
        assert voc_ap(detections, truth, rule)[0] == pytest.approx(1.0)


def test_a_missed_difficult_object_costs_nothing():
    assert voc_ap([found(0.7)], [there(), there(FAR, difficult=1)], "area")[0] == pytest.approx(1.0)


def test_overlap_counts_inclusive_pixels_and_half_is_enough():
    half = (1.0, 1.0, 10.0, 5.0)  # 50 of 100 inclusive pixels; 36 of 81 without the + 1
    less = (1.0, 1.0, 10.0, 4.9)
    assert voc_ap([found(0.9, half)], [there()], "area")[0] == pytest.approx(1.0)
    assert voc_ap([found(0.9, less)], [there()], "area")[0] == 0.0


def test_recall_of_exactly_three_tenths_does_not_reach_the_level_of_three_tenths():
    truth = [there(image=i) for i in range(10)]
    detections = [found(0.9, image=i) for i in range(3)]
    assert voc_ap(detections, truth, "voc2007")[0] == pytest.approx(3 / 11)
    assert voc_ap(detections, truth, "area")[0] == pytest.approx(0.3)


def test_equal_scores_keep_their_order():
    hit, miss = found(0.5, image="b"), found(0.5, image="a")
    truth = [there(image="b")]
    assert voc_ap([hit, miss], truth, "area")[0] == pytest.approx(1.0)
    assert voc_ap([miss, hit], truth, "area")[0] == pytest.approx(0.5)


def test_classes_do_not_mix():
    aps = voc_ap([found(0.9, label=3), found(0.8, label=1)], [there(label=3), there(FAR, label=1)], "area")
    assert aps == {1: 0.0, 3: pytest.approx(1.0)}


def test_classes_without_countable_objects_are_nan():
    aps = voc_ap([found(0.9, label=2)], [there(label=0), there(label=1, difficult=1)])
    assert set(aps) == {0, 1, 2}
    assert aps[0] == 0.0
    assert math.isnan(aps[1]) and math.isnan(aps[2])


def test_nothing_at_all():
    assert voc_ap([], []) == {}
    assert voc_ap(np.zeros((0, 7)), np.zeros((0, 7))) == {}


def test_bad_input_is_named():
    with pytest.raises(InputError, match="rule='voc2010'"):
        voc_ap([], [], "voc2010")
    with pytest.raises(InputError, match="a row of ground_truth has 6 values"):
        voc_ap([], [there()[:6]])


def random_rows(seed):
    """Crowded images with difficult objects, tied scores and detections in images without objects."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(1, 40, (60, 2))
    truth = np.column_stack([
        rng.integers(0, 8, 60), rng.integers(0, 3, 60), corner, corner + rng.integers(5, 30, (60, 2)),
        rng.random(60) < 0.2,
    ])  # fmt: skip
    near = truth[rng.integers(0, 60, 300)]
    boxes = near[:, 2:6] + rng.integers(-4, 5, (300, 4))
    image = np.where(rng.random(300) < 0.9, near[:, 0], 9)
    scores = np.round(rng.random(300), 1)
    return np.column_stack([image, near[:, 1], scores, boxes]).astype(float), truth.astype(float)


def transcribed(detections, truth, label, rule):
    """The rules read aloud, one detection at a time; None where no object counts."""
    objects = [list(row) for row in truth if row[1] == label]
    positives = sum(not row[6] for row in objects)
    taken, hits, curve, counted = set(), 0, [], 0
    for row in sorted((r for r in detections if r[1] == label), key=lambda r: -r[2]):
        here = [(iou(row[3:], o[2:6]), -k) for k, o in enumerate(objects) if o[0] == row[0]]
        best, k = max(here, default=(0.0, None))
        if best >= 0.5 and objects[-k][6]:
            continue
        counted += 1
        if best >= 0.5 and k not in taken:
            hits += 1
            taken.add(k)
        curve.append((hits / positives, hits / counted))
    if rule == "voc2007":
        return sum(max((p for r, p in curve if r >= 0.1 * k), default=0.0) for k in range(11)) / 11
    steps = [recall for recall, _ in groupby(r for r, _ in curve)]
    before = [0.0, *steps[:-1]]
    return sum((r - b) * max(p for q, p in curve if q >= r) for r, b in zip(steps, before, strict=True))


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + 1)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    sizes = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(sizes) - width * height)


@pytest.mark.parametrize("rule", ["voc2007", "area"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_transcribed_rules(rule, seed):
    detections, truth = random_rows(seed)
    aps = voc_ap(detections, truth, rule)
    assert set(aps) == {0, 1, 2}
    for label, ap in aps.items():
        assert ap == pytest.approx(transcribed(detections, truth, label, rule), abs=1e-12)
        assert 0 < ap < 1


def test_tuples_with_names_and_arrays_give_the_same():
    detections, truth = random_rows(0)
    named = [[(f"{int(row[0]):06d}", *row[1:]) for row in table.tolist()] for table in (detections, truth)]
    assert voc_ap(*named) == voc_ap(detections, truth)
