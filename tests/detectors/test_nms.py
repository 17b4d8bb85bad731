"""Non-maximum suppression against a slow transcription of the greedy rule."""

import pytest
import torch
from torchvision.ops import box_iou

from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.nms import CHUNK, non_maximum_suppression


def crowded(count, classes, side=100.0):
    corner = torch.rand(count, 2) * side
    boxes = torch.cat([corner, corner + torch.rand(count, 2) * side / 2], 1)
    return boxes, torch.rand(count, classes).mul(50).round().div(50)  # tied scores


def greedy(boxes, scores, settings):
    """One (location, class) pair at a time."""
    pairs = [(-s.item(), i, c) for i, row in enumerate(scores) for c, s in enumerate(row) if s > settings.confidence]
    kept = []
    overlaps = box_iou(boxes.double(), boxes.double())
    for negative, i, c in sorted(pairs):
        if all(c != d or overlaps[i, j] <= settings.iou for _, j, d in kept):
            kept.append((-negative, i, c))
    return kept[: settings.max_detections]


def check(result, expected, boxes):
    assert result.labels.tolist() == [c for _, _, c in expected]
    assert result.scores.tolist() == pytest.approx([s for s, _, _ in expected])
    torch.testing.assert_close(result.boxes, boxes[[i for _, i, _ in expected]])


@pytest.mark.parametrize("limit", [7, 10_000])
@pytest.mark.parametrize(("count", "classes"), [(150, 3), (40, 20), (300, 1)])
def test_equals_the_greedy_rule(count, classes, limit):
    settings = DecodeSettings(confidence=0.3, iou=0.5, max_detections=limit, multi_label=True)
    images = [crowded(count, classes) for _ in range(2)]
    results = non_maximum_suppression(*(torch.stack(part) for part in zip(*images, strict=True)), settings)
    for result, (boxes, scores) in zip(results, images, strict=True):
        check(result, greedy(boxes, scores, settings), boxes)


def test_chunks_do_not_show(monkeypatch):
    boxes, scores = crowded(200, 2)
    settings = DecodeSettings(iou=0.4, max_detections=1000)
    whole = non_maximum_suppression(boxes[None], scores[None], settings)[0]
    assert CHUNK > 400
    monkeypatch.setattr("dcodp.detectors.nms.CHUNK", 13)
    pieces = non_maximum_suppression(boxes[None], scores[None], settings)[0]
    for key, value in vars(whole).items():
        assert torch.equal(value, getattr(pieces, key))


@pytest.mark.parametrize(("multi_label", "labels"), [(True, [1, 0]), (False, [1])])
def test_one_box_is_one_class_unless_asked_otherwise(multi_label, labels):
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    settings = DecodeSettings(multi_label=multi_label)
    result = non_maximum_suppression(boxes, torch.tensor([[[0.4, 0.9, 0.0005]]]), settings)[0]
    assert result.labels.tolist() == labels


def test_the_number_of_candidates_is_bounded(monkeypatch):
    monkeypatch.setattr("dcodp.detectors.nms.MAX_CANDIDATES", 40)
    count = 60
    start = torch.arange(count).float()[:, None] * 2
    boxes = torch.cat([start, start, start + 1, start + 1], 1)  # nothing overlaps
    scores = torch.linspace(1, 0.5, count)[:, None]
    result = non_maximum_suppression(boxes[None], scores[None], DecodeSettings(max_detections=10**6))[0]
    torch.testing.assert_close(result.scores, scores[:40, 0])


def test_nothing_above_the_threshold():
    boxes, scores = crowded(5, 2)
    result = non_maximum_suppression(boxes[None], scores[None] * 1e-4, DecodeSettings())[0]
    assert result.boxes.shape == (0, 4)
    assert result.scores.shape == result.labels.shape == (0,)
    assert result.labels.dtype == torch.int64


def test_half_precision_and_gradients_come_back_as_plain_float32():
    boxes, scores = crowded(20, 2)
    result = non_maximum_suppression(boxes[None].half().requires_grad_(), scores[None].half(), DecodeSettings())[0]
    assert result.boxes.dtype == result.scores.dtype == torch.float32
    assert not result.boxes.requires_grad


def test_values_that_are_not_finite_are_no_detections():
    boxes, scores = crowded(4, 1)
    boxes[0, 2], scores[:] = float("inf"), 0.5
    scores[1] = float("nan")
    result = non_maximum_suppression(boxes[None], scores[None], DecodeSettings(iou=1.0))[0]
    torch.testing.assert_close(result.boxes, boxes[2:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same():
    boxes, scores = crowded(2000, 4)
    on_cpu = non_maximum_suppression(boxes[None], scores[None], DecodeSettings())[0]
    on_gpu = non_maximum_suppression(boxes[None].cuda(), scores[None].cuda(), DecodeSettings())[0]
    for key, value in vars(on_cpu).items():
        assert torch.equal(value, getattr(on_gpu, key).cpu())
