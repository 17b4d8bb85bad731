"""Assignment and loss of YOLOv7 on cases small enough to know the answer."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, one_hot
from torchvision.ops import box_convert, box_iou, complete_box_iou_loss

from dcodp.detectors.families.yolov7.assign import (
    Matches,
    _class_cost,
    _solve_image,
    assign_by_shape,
    assign_by_transport,
)
from dcodp.detectors.families.yolov7.head import STRIDES, decode
from dcodp.detectors.families.yolov7.loss import Gains, _objectness_target, complete_iou, detection_loss

CLASSES, SIZE = 4, 128
ANCHORS = torch.tensor([[[2.0, 2.0], [2.0, 6.0], [20.0, 20.0]]]).repeat(3, 1, 1)  # in cells


@pytest.fixture
def raw():
    return [torch.randn(2, 3, SIZE // s, SIZE // s, 5 + CLASSES) for s in STRIDES]


def places(match: Matches) -> set[tuple[int, ...]]:
    return set(zip(*(t.tolist() for t in vars(match).values()), strict=True))


@pytest.mark.parametrize(
    ("x", "y", "neighbours"),
    [
        (5.3, 7.2, {(4, 7), (5, 6)}),  # nearest to the left and the upper neighbour
        (5.7, 7.8, {(6, 7), (5, 8)}),
        (0.3, 7.8, {(0, 8)}),  # no neighbour outside the level
        (15.7, 15.6, set()),
        (5.5, 7.5, set()),  # exactly in the middle
    ],
)
def test_cells_that_answer(raw, x, y, neighbours):
    target = torch.tensor([[1.0, 2.0, x / 16, y / 16, 2.5 / 16, 2.5 / 16]])
    match = assign_by_shape(raw, target, ANCHORS)[0]
    cells = {(int(x), int(y))} | neighbours
    # the first two anchors are within a factor of four of 2.5 × 2.5 cells, the third is not
    assert places(match) == {(1, anchor, cy, cx, 0) for anchor in (0, 1) for cx, cy in cells}


def test_shape_ratio_is_strict(raw):
    for side, matched in ((7.99, True), (8.0, False), (0.501, True), (0.5, False)):
        target = torch.tensor([[0.0, 0.0, 0.5, 0.5, side / 16, side / 16]])
        anchors = assign_by_shape(raw, target, ANCHORS)[0].anchor
        assert (0 in anchors.tolist()) == matched


def test_no_targets(raw):
    for assign in (assign_by_shape, lambda *a: assign_by_transport(*a, STRIDES)):
        assert [len(m) for m in assign(raw, torch.zeros(0, 6), ANCHORS)] == [0, 0, 0]


def test_class_cost_is_the_cross_entropy_of_the_score():
    objectness, logits = torch.randn(6, 1, dtype=torch.float64), torch.randn(6, CLASSES, dtype=torch.float64)
    labels = torch.tensor([3, 0, 3])
    log_scores = (objectness.sigmoid() * logits.sigmoid()).log()
    score = (log_scores / 2).exp().expand(3, 6, CLASSES)
    wanted = one_hot(labels, CLASSES).double()[:, None].expand(3, 6, CLASSES)
    expected = binary_cross_entropy(score, wanted, reduction="none").sum(2)
    torch.testing.assert_close(_class_cost(log_scores, labels), expected)


def test_class_cost_stays_finite_for_certain_scores():
    assert _class_cost(torch.tensor([[0.0, -200.0]]), torch.tensor([0, 1])).isfinite().all()


def test_transport_takes_as_many_anchors_as_the_ious_add_up_to():
    wanted = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    widths = torch.tensor([9.0, 8.0, 7.0, 1.0])  # IoUs 0.9 + 0.8 + 0.7 + 0.1 = 2.5: two anchors
    boxes = torch.stack([torch.zeros(4), torch.zeros(4), widths, torch.full((4,), 10.0)], 1)
    even = torch.cat([boxes, torch.full((4, 1), -1.0)], 1)
    assert _solve_image(even, torch.tensor([0]), wanted).tolist() == [0, 0, -1, -1]
    sure = even.clone()
    sure[2, 4] = -1e-6  # a much surer class outweighs an IoU of 0.1 less
    sure[1, 4] = -8.0
    assert _solve_image(sure, torch.tensor([0]), wanted).tolist() == [0, -1, 0, -1]


def test_transport_gives_a_contested_anchor_to_the_cheapest_box():
    wanted = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]])
    predictions = torch.tensor([[0.0, 0.0, 10.0, 8.5, -1.0]])
    assert _solve_image(predictions, torch.tensor([0, 0]), wanted).tolist() == [1]


def test_transport_chooses_among_the_candidates_and_reaches_every_box(raw):
    targets = torch.tensor([[0, 1, 0.4, 0.4, 0.1, 0.1], [0, 2, 0.7, 0.2, 0.2, 0.3], [1, 0, 0.5, 0.5, 0.3, 0.2]])
    candidates = [places(m) for m in assign_by_shape(raw, targets, ANCHORS)]
    chosen = [places(m) for m in assign_by_transport(raw, targets, ANCHORS, STRIDES)]
    without_target = [{place[:4] for place in level} for level in candidates]
    assert all({p[:4] for p in a} <= b for a, b in zip(chosen, without_target, strict=True))
    assert {place[4] for level in chosen for place in level} == {0, 1, 2}


def test_last_row_of_a_repeated_place_counts():
    place = torch.tensor([[0, 1, 2, 3, 0], [0, 0, 0, 0, 1], [0, 1, 2, 3, 2], [0, 1, 2, 3, 3]])
    target = _objectness_target(torch.zeros(1, 2, 4, 4), Matches(*place.T), torch.tensor([0.9, 0.3, 0.5, 0.2]))
    assert target[0, 1, 2, 3] == pytest.approx(0.2) and target[0, 0, 0, 0] == pytest.approx(0.3)
    assert target.sum() == pytest.approx(0.5)


def test_complete_iou_is_torchvisions():
    a, b = torch.rand(50, 4, dtype=torch.float64) + 0.1, torch.rand(50, 4, dtype=torch.float64) + 0.1
    corners = [box_convert(boxes, "cxcywh", "xyxy") for boxes in (a, b)]
    torch.testing.assert_close(1 - complete_iou(a, b), complete_box_iou_loss(*corners), rtol=1e-5, atol=1e-6)


def test_complete_iou_of_a_vanished_prediction_has_a_gradient():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    complete_iou(boxes, torch.tensor([[0.5, 0.5, 1.0, 1.0]])).sum().backward()
    assert boxes.grad.isfinite().all()


def test_perfect_predictions_cost_nothing(raw):
    targets = torch.tensor([[0.0, 2.0, 0.40, 0.45, 2.0 / 16, 2.0 / 16]])
    matches = assign_by_shape(raw, targets, ANCHORS)
    for level, match in zip(raw, matches, strict=True):
        level[..., 4:] = -30.0
        size = level.shape[2]
        centre = targets[0, 2:4] * size - torch.stack([match.x, match.y], 1)
        level[match.image, match.anchor, match.y, match.x, :2] = ((centre + 0.5) / 2).logit()
        sides = targets[0, 4:6] * size / ANCHORS[0][match.anchor]
        level[match.image, match.anchor, match.y, match.x, 2:4] = (sides.sqrt() / 2).logit()
        level[match.image, match.anchor, match.y, match.x, 4] = 30.0
        level[match.image, match.anchor, match.y, match.x, 5 + 2] = 30.0
    parts = detection_loss(raw, targets, matches, ANCHORS, Gains())
    assert all(float(part) < 1e-5 for part in parts.values())


def test_one_class_has_no_classification_loss():
    raw = [torch.randn(1, 3, n, n, 6) for n in (16, 8, 4)]
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.2, 0.2]])
    parts = detection_loss(raw, targets, assign_by_shape(raw, targets, ANCHORS), ANCHORS, Gains())
    assert parts["classification"] == 0 < parts["box"]


def test_gains_scale_with_classes_and_image_size():
    assert Gains().scaled(80, 640) == Gains()
    assert Gains().scaled(20, 320) == Gains(0.05, pytest.approx(0.7 / 4), pytest.approx(0.3 / 4))


def test_transport_costs_use_pixels():
    """A prediction that covers the box wins over its neighbours at any stride."""
    raw = [torch.full((1, 3, SIZE // s, SIZE // s, 5 + CLASSES), -6.0) for s in STRIDES]
    target = torch.tensor([[0, 1, 0.53, 0.53, 0.25, 0.25]])
    for level in raw:
        level[..., :2], level[..., 4:] = 0.0, -1.0
    raw[1][0, 0, 4, 4, 2:4] = 0.0  # the anchor's own sides: 32 pixels, as the box
    chosen = assign_by_transport(raw, target, ANCHORS, STRIDES)
    assert [len(m) for m in chosen] == [0, 1, 0]
    box = decode(raw[1], ANCHORS[1], 16)[0, 0, 4, 4, :4][None]
    wanted = target[:, 2:] * SIZE
    iou = box_iou(box_convert(box, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy"))
    assert float(iou) > 0.5 and places(chosen[1]) == {(0, 0, 4, 4, 0)}
