"""Non-maximum suppression for dense heads, which score every class at every location."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from dcodp.data.types import Detections
from dcodp.detectors.base import DecodeSettings

MAX_CANDIDATES = 30_000  # highest-scored (box, class) pairs that take part, per image
CHUNK = 1_000  # candidates suppressed at a time


def non_maximum_suppression(boxes: Tensor, scores: Tensor, settings: DecodeSettings) -> list[Detections]:
    """boxes [B, N, 4] (xmin, ymin, xmax, ymax, pixels), scores [B, N, C] → one `Detections` per image.

    A box is a candidate for its best class if that scores above `settings.confidence`; with `settings.multi_label`,
    every (box, class) pair above it is one, so that a box may be found as two classes.
    Greedy suppression within each class at IoU > `settings.iou`, then the `settings.max_detections` highest scores.
    Of equal scores the lower location, then the lower class, comes first. The result does not depend on a time limit;
    candidates beyond the `MAX_CANDIDATES` highest are left out, as are boxes that are not finite. Any device; half
    precision is computed in float32.
    """
    return [_one_image(b, s, settings) for b, s in zip(boxes.detach().float(), scores.detach().float(), strict=True)]


def _one_image(boxes: Tensor, scores: Tensor, settings: DecodeSettings) -> Detections:
    location, label, score = _candidates(boxes, scores, settings)
    boxes = boxes[location]
    keep = _suppress(_apart(boxes, label), settings.iou, settings.max_detections)
    return Detections(boxes[keep], score[keep], label[keep])


def _candidates(boxes: Tensor, scores: Tensor, settings: DecodeSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Location [n], class [n] and score [n] of the candidates, highest score first."""
    eligible = (scores > settings.confidence) & boxes.isfinite().all(1, keepdim=True)
    if not settings.multi_label:
        best = torch.zeros_like(eligible).scatter_(1, scores.argmax(1, keepdim=True), True)
        eligible &= best
    location, label = eligible.nonzero(as_tuple=True)
    score, order = scores[location, label].sort(descending=True, stable=True)
    order = order[:MAX_CANDIDATES]
    return location[order], label[order], score[:MAX_CANDIDATES]


def _apart(boxes: Tensor, label: Tensor) -> Tensor:
    """The boxes [n, 4] as float64, each class shifted to a place of its own, so that classes never overlap.

    In double precision the shift changes no box of fewer than 2²⁰ pixels by more than 1e-7 of a pixel.
    """
    boxes = boxes.double()
    if not len(boxes):
        return boxes
    low, high = boxes.min(), boxes.max()
    return boxes - low + (label * (high - low + 1))[:, None]


def _suppress(boxes: Tensor, iou: float, limit: int) -> Tensor:
    """Indices of the first `limit` survivors of boxes [n, 4], which come highest score first.

    A box can only be suppressed by a survivor before it, so the candidates are taken in chunks, each behind the
    survivors so far, until there are enough: the same result as in one go, without n² comparisons.
    """
    kept = torch.zeros(0, dtype=torch.long, device=boxes.device)
    for chunk in torch.arange(len(boxes), device=boxes.device).split(CHUNK):
        rows = torch.cat([kept, chunk])
        rank = torch.arange(len(rows), 0, -1, dtype=boxes.dtype, device=boxes.device)  # keeps the order given
        kept = rows[nms(boxes[rows], rank, iou)][:limit]
        if len(kept) == limit:
            break
    return kept
