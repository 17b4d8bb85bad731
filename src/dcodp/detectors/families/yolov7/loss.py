"""The training loss of YOLOv7: complete IoU, objectness, classification, summed over three levels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from dcodp.detectors.families.yolov7.assign import Matches
from dcodp.detectors.parallel import mean_over_processes, share_of_mean

BALANCE = (4.0, 1.0, 0.4)  # of the objectness of strides 8, 16, 32


@dataclass(frozen=True)
class Gains:
    """Weights of the three parts; the defaults hold for 80 classes at 640 pixels."""

    box: float = 0.05
    objectness: float = 0.7
    classification: float = 0.3

    def scaled(self, classes: int, image_size: int) -> Gains:
        """As the official training does: classification with the classes, objectness with the cells."""
        objectness = self.objectness * (image_size / 640) ** 2
        return Gains(self.box, objectness, self.classification * classes / 80)


def detection_loss(
    raw: list[Tensor], targets: Tensor, matches: list[Matches], anchors: Tensor, gains: Gains
) -> dict[str, Tensor]:
    """raw: levels [B, A, H, W, 5 + C] float32, targets [n, 6], anchors [L, A, 2] in cells → the three parts.

    Scalars "box", "objectness", "classification", each after its gain and mean over images; their sum is the loss.
    Counts are those of the whole batch where several processes share it.
    """
    box, objectness, classification = (raw[0].new_zeros(()) for _ in range(3))
    counts = mean_over_processes(raw[0].new_tensor([len(match) for match in matches]))
    share = share_of_mean(len(raw[0]), raw[0].device)
    for level, match, sides, weight, count in zip(raw, matches, anchors, BALANCE, counts, strict=True):
        wanted = torch.zeros_like(level[..., 4])
        if len(match):
            rows = match.pick(level)
            iou = complete_iou(predicted(rows, sides[match.anchor]), _wanted_boxes(level, match, targets))
            box = box + (1 - iou).sum() / count
            wanted = _objectness_target(wanted, match, iou.detach().clamp(0))
            wrong = _classification(rows[:, 5:], targets[match.target, 1].long())
            classification = classification + wrong * len(match) / count
        objectness = objectness + weight * share * binary_cross_entropy_with_logits(level[..., 4], wanted)
    return {
        "box": gains.box * box,
        "objectness": gains.objectness * objectness,
        "classification": gains.classification * classification,
    }


def predicted(rows: Tensor, anchors: Tensor) -> Tensor:
    """Raw rows [n, 5 + C] → cx, cy, w, h in cells, relative to the cell's corner."""
    p = rows[:, :4].sigmoid()
    return torch.cat([2 * p[:, :2] - 0.5, (2 * p[:, 2:]) ** 2 * anchors], 1)


def _wanted_boxes(level: Tensor, match: Matches, targets: Tensor) -> Tensor:
    """[n, 4]: the matched boxes in cells, relative to the corner of the cell that answers."""
    height, width = level.shape[2:4]
    boxes = targets[match.target, 2:6] * targets.new_tensor([width, height, width, height])
    corner = torch.stack([match.x, match.y], 1)
    return torch.cat([boxes[:, :2] - corner, boxes[:, 2:]], 1)


def _objectness_target(empty: Tensor, match: Matches, iou: Tensor) -> Tensor:
    """The IoU where a box is answered for, else 0. Where a place occurs twice its last row counts, on any device."""
    b, a, h, w = empty.shape
    place = ((match.image * a + match.anchor) * h + match.y) * w + match.x
    row = torch.arange(len(place), device=place.device)
    last = place.new_zeros(b * a * h * w).scatter_reduce(0, place, row, "amax", include_self=False)
    return empty.flatten().index_put((place,), iou[last[place]]).view_as(empty)


def _classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits [n, C]; nothing to learn with a single class."""
    classes = logits.shape[1]
    if classes == 1:
        return logits.new_zeros(())
    return binary_cross_entropy_with_logits(logits, one_hot(labels, classes).to(logits.dtype))


def complete_iou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """Boxes [n, 4] as cx, cy, w, h, pairwise by row → CIoU [n] (arXiv 1911.08287, equations 6-11)."""
    (acx, acy, aw, ah), (bcx, bcy, bw, bh) = a.unbind(1), b.unbind(1)
    overlap_w, hull_w = _overlap_and_hull(acx, aw, bcx, bw)
    overlap_h, hull_h = _overlap_and_hull(acy, ah, bcy, bh)
    intersection = overlap_w.clamp(0) * overlap_h.clamp(0)
    iou = intersection / (aw * ah + bw * bh - intersection + eps)
    distance = ((acx - bcx) ** 2 + (acy - bcy) ** 2) / (hull_w**2 + hull_h**2 + eps)
    aspect = 4 / math.pi**2 * (torch.atan(bw / (bh + eps)) - torch.atan(aw / (ah + eps))) ** 2
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + eps)
    return iou - distance - weight * aspect


def _overlap_and_hull(a: Tensor, a_side: Tensor, b: Tensor, b_side: Tensor) -> tuple[Tensor, Tensor]:
    """Along one axis, from centres and sides: the length of the overlap (negative: a gap) and of the hull."""
    low_a, high_a, low_b, high_b = a - a_side / 2, a + a_side / 2, b - b_side / 2, b + b_side / 2
    overlap = torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)
    return overlap, torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)
