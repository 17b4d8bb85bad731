"""Which anchors answer for which boxes: by shape alone, or by optimal transport over what was predicted.

Targets are rows of (image index, class, cx, cy, w, h), the box as fractions of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torchvision.ops import box_convert, box_iou

from dcodp.detectors.families.yolov7.head import decode

MAX_RATIO = 4.0  # between the sides of a box and of an anchor that may answer for it
IOU_WEIGHT = 3.0  # of −log IoU beside the classification cost
MAX_ANCHORS = 10  # candidates whose IoUs make up the number of anchors of a box
# the box's own cell, then left, upper, right, lower neighbour: which way the box's centre is moved, in half cells
SHIFTS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass
class Matches:
    """On one level: anchor `anchor` of cell (`y`, `x`) of image `image` answers for row `target` of the targets.

    All int64 [n]. The same place may occur more than once.
    """

    image: Tensor
    anchor: Tensor
    y: Tensor
    x: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Tensor) -> Matches:
        return Matches(*(t[rows] for t in vars(self).values()))

    def pick(self, level: Tensor) -> Tensor:
        """level [B, A, H, W, K] → [n, K]"""
        return level[self.image, self.anchor, self.y, self.x]


def assign_by_shape(levels: list[Tensor], targets: Tensor, anchors: Tensor) -> list[Matches]:
    """levels [B, A, H, W, K] (shapes only), targets [n, 6], anchors [L, A, 2] in cells → matches per level.

    Every anchor within a factor of `MAX_RATIO` of the box's width and height, in the cell of the box's centre and in
    the two cells nearest to it. Rows run over shifts, then anchors, then targets.
    """
    return [_level_matches(level, targets, a) for level, a in zip(levels, anchors, strict=True)]


def _level_matches(level: Tensor, targets: Tensor, anchors: Tensor) -> Matches:
    height, width = level.shape[2:4]
    size = targets.new_tensor([width, height])
    centres, sides = targets[:, 2:4] * size, targets[:, 4:6] * size
    ratio = sides / anchors[:, None]  # [A, n, 2]
    anchor, target = (torch.maximum(ratio, 1 / ratio).amax(2) < MAX_RATIO).nonzero(as_tuple=True)
    centres = centres[target]
    row_of, shift = _near_cells(centres, size)
    cell = (centres[row_of] - 0.5 * shift).long()
    x, y = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
    target = target[row_of]
    return Matches(targets[target, 0].long(), anchor[row_of], y, x, target)


def _near_cells(centres: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """centres [n, 2] in cells → rows [m] and shifts [m, 2] such that the moved centres name the cells that answer.

    A neighbour answers where the centre is less than half a cell away from it and it lies inside the level.
    """
    before = (centres % 1 < 0.5) & (centres > 1)
    behind = ((size - centres) % 1 < 0.5) & (size - centres > 1)
    wanted = torch.stack([torch.ones_like(before[:, 0]), *before.unbind(1), *behind.unbind(1)])
    which, row = wanted.nonzero(as_tuple=True)
    return row, centres.new_tensor(SHIFTS)[which]


@torch.no_grad()
def assign_by_transport(raw: list[Tensor], targets: Tensor, anchors: Tensor, strides: tuple[int, ...]) -> list[Matches]:
    """Of `assign_by_shape`'s candidates those that suit each box best, weighed over all levels at once (SimOTA).

    raw: levels [B, A, H, W, 5 + C]. Cost = classification + 3 · (−log IoU); a box gets as many anchors as its ten
    best IoUs add up to (at least one), and an anchor wanted by several boxes goes to the cheapest
    (YOLOX, arXiv 2107.08430, section 2.1, as YOLOv7 uses it).
    """
    candidates = assign_by_shape(raw, targets, anchors)
    predictions = [_decoded(r, match, a, s) for r, match, a, s in zip(raw, candidates, anchors, strides, strict=True)]
    size = targets.new_tensor([raw[0].shape[3], raw[0].shape[2]]).repeat(2) * strides[0]
    wanted = box_convert(targets[:, 2:6] * size, "cxcywh", "xyxy")
    chosen = _solve(torch.cat(predictions), torch.cat([m.image for m in candidates]), targets, wanted)
    parts = chosen.split([len(m) for m in candidates])
    return [_reassigned(match, target) for match, target in zip(candidates, parts, strict=True)]


def _decoded(raw: Tensor, match: Matches, anchors: Tensor, stride: int) -> Tensor:
    """[n, 4 + C]: the matched predictions as xmin, ymin, xmax, ymax in pixels and log(class · objectness)."""
    rows = match.pick(raw)
    boxes = match.pick(decode(raw[..., :4], anchors, stride))
    scores = logsigmoid(rows[:, 5:]) + logsigmoid(rows[:, 4:5])
    return torch.cat([box_convert(boxes, "cxcywh", "xyxy"), scores], 1)


def _solve(predictions: Tensor, image: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """For every candidate [n] the row of the target it answers for, or −1."""
    chosen = torch.full_like(image, -1)
    for i in targets[:, 0].unique().long():
        rows, own = (image == i).nonzero().flatten(), (targets[:, 0] == i).nonzero().flatten()
        if len(rows):
            target = _solve_image(predictions[rows], targets[own, 1].long(), wanted[own])
            chosen[rows] = torch.where(target >= 0, own[target], -1)
    return chosen


def _solve_image(predictions: Tensor, labels: Tensor, wanted: Tensor) -> Tensor:
    """predictions [n, 4 + C], labels [t], wanted [t, 4] → target index of every prediction [n], or −1."""
    iou = box_iou(wanted, predictions[:, :4])  # [t, n]
    cost = _class_cost(predictions[:, 4:], labels) - IOU_WEIGHT * torch.log(iou + 1e-8)
    share = iou.topk(min(MAX_ANCHORS, iou.shape[1]), 1).values.sum(1).int().clamp(min=1)
    rank = cost.argsort(dim=1, stable=True).argsort(dim=1)
    matched = rank < share[:, None]
    cheapest = cost.argmin(0)
    first = matched.int().argmax(0)
    count = matched.sum(0)
    return torch.where(count > 1, cheapest, torch.where(count == 1, first, -1))


def _class_cost(log_scores: Tensor, labels: Tensor) -> Tensor:
    """log(class · objectness) [n, C], labels [t] → [t, n]: binary cross-entropy of √(class · objectness), summed.

    −Σ_c log(1 − s_c) over all classes, corrected at the target's own class: no [t, n, C] tensor is needed.
    """
    log_s = log_scores / 2
    log_rest = torch.log1p(-log_s.exp().clamp(max=1 - 1e-7))
    own = (log_rest - log_s)[:, labels].T
    return own - log_rest.sum(1)


def _reassigned(match: Matches, target: Tensor) -> Matches:
    kept = (target >= 0).nonzero().flatten()
    return Matches(match.image[kept], match.anchor[kept], match.y[kept], match.x[kept], target[kept])
