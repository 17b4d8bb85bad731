"""How far the predictions of one net are from those of another, box by box."""

from __future__ import annotations

from torch import Tensor

FAR = 4.0  # squared, in widths and heights: beyond, a box is simply somewhere else


def prediction_distance(boxes: Tensor, scores: Tensor, wanted_boxes: Tensor, wanted_scores: Tensor) -> Tensor:
    """Squared differences of probabilities, and of boxes in units of their size, weighed by how sure the wanted
    prediction is, for each sure object: boxes [B, N, 4] (cx, cy, w, h), scores [B, N, C] → a scalar."""
    sure = wanted_scores.amax(2)
    sides = wanted_boxes[..., 2:].repeat(1, 1, 2).clamp(min=1)
    moved = ((boxes - wanted_boxes) / sides).square().sum(2).clamp(max=FAR)
    changed = (scores - wanted_scores).square().sum(2)
    return (changed + sure * moved).sum() / sure.sum().clamp(min=1e-9)
