"""What a YOLOv7 learns from another's head: objectness everywhere, boxes and classes where that one sees something."""

from __future__ import annotations

import torch
from torch import Tensor

from dcodp.detectors.families.yolov7.loss import BALANCE, Gains, complete_iou, predicted
from dcodp.detectors.imitation import binary_divergence, plain_mean, weighted_mean


def imitation(found: list[Tensor], taught: list[Tensor], anchors: Tensor, gains: Gains) -> dict[str, Tensor]:
    """Levels [B, A, H, W, 5 + C] float32 of both, anchors [L, A, 2] in cells → scalars, zero where both agree.

    "objectness" is a mean over all places, weighed by level as in the loss; "box" (1 − CIoU) and "classification" (mean
    over classes) are means over places weighted by the taught probability, objectness times the best class'.
    """
    objectness = sum(
        weight * plain_mean(binary_divergence(f[..., 4], t[..., 4]))
        for f, t, weight in zip(found, taught, BALANCE, strict=True)
    )
    sides = torch.cat([_anchor_rows(level, a) for level, a in zip(found, anchors, strict=True)])
    rows, wanted = (torch.cat([level.flatten(0, 3) for level in levels]) for levels in (found, taught))
    weights = wanted[:, 4].sigmoid() * wanted[:, 5:].sigmoid().amax(1)
    boxes, aims = predicted(rows, sides), predicted(wanted, sides)
    missed = complete_iou(aims, aims) - complete_iou(boxes, aims)  # of a box without area even with itself 0
    classes = binary_divergence(rows[:, 5:], wanted[:, 5:]).mean(1)
    return {
        "box": gains.box * weighted_mean(missed, weights),
        "objectness": gains.objectness * torch.as_tensor(objectness),
        "classification": gains.classification * weighted_mean(classes, weights),
    }


def _anchor_rows(level: Tensor, anchors: Tensor) -> Tensor:
    """level [B, A, H, W, K], anchors [A, 2] → [B · A · H · W, 2]: the anchor of each of the level's rows."""
    return anchors[None, :, None, None].expand(*level.shape[:4], 2).reshape(-1, 2)
