"""Whether an exported file says of real images what the net says: numbers, and detections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dcodp.data.types import Detections
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.nms import non_maximum_suppression
from dcodp.errors import InputError

TOLERANCE = 1e-4  # largest difference over largest value, of each output
CONFIDENCE = 0.25  # detections that count
BOX, SCORE = 0.1, 1e-3  # pixels; detections this near are the same

Said = Callable[[Tensor], list[Tensor]]  # images → outputs


@dataclass(frozen=True)
class Head:
    """`decode`: outputs → what is detected in each image. `chosen`: the rows of the outputs are detections that the net
    has chosen; those of equal scores may change places, so that outputs are compared detection by detection."""

    decode: Callable[[list[Tensor]], list[Detections]]
    chosen: bool = False


@dataclass(frozen=True)
class Equality:
    """`relative`: of each output, max |a − b| / max |a|, the worst of all images; infinite where shapes differ.

    `detections`: how many the net finds above the confidence; `unmatched`: how many of both have no twin. None where
    the outputs were not decoded.
    """

    images: int
    relative: tuple[float, ...]
    detections: int | None = None
    unmatched: int | None = None

    @property
    def largest(self) -> float:
        return max(self.relative, default=0.0)

    def holds(self, tolerance: float = TOLERANCE) -> bool:
        return self.largest <= tolerance and not self.unmatched

    @property
    def statement(self) -> str:
        """One line, for a person."""
        text = f"largest relative error {self.largest:.1e} on {self.images} images"
        if self.detections is None:
            return text
        return f"{text}; {self.unmatched} of {self.detections} detections differ"


def compare(net: Said, exported: Said, images: Iterable[Tensor], head: Head | None = None) -> Equality:
    """images: batches [B, 3, H, W] as both take them.

    With `head`, detections are matched, too: of the same class, scores and boxes nearer than `SCORE` and `BOX`.
    """
    worst: list[float] = []
    count = found = unmatched = 0
    for batch in images:
        said, again = net(batch), exported(batch)
        errors = [_matched_error(said, again, head)] if head and head.chosen else relative_errors(said, again)
        worst = [max(pair) for pair in zip(worst or errors, errors, strict=True)]
        count += len(batch)
        if head is not None:
            for one, other in zip(head.decode(said), head.decode(again), strict=True):
                found += int((one.scores > CONFIDENCE + SCORE).sum())
                unmatched += without_twin(one, other) + without_twin(other, one)
    seen = (found, unmatched) if head is not None else (None, None)
    return Equality(count, tuple(worst), *seen)


def require_equal(found: Equality, what: str, tolerance: float = TOLERANCE) -> None:
    """Raises InputError unless the export computes what the net computes."""
    if not found.holds(tolerance):
        raise InputError(f"{what} does not compute what the net computes: {found.statement}; use another format")


def relative_errors(net: list[Tensor], exported: list[Tensor]) -> list[float]:
    """Of each output max |a − b| / max |a|. Raises InputError where their numbers differ."""
    if len(net) != len(exported):
        raise InputError(f"the exported file has {len(exported)} outputs, the net {len(net)}; export it anew")
    return [_relative(a.double().cpu(), b.double().cpu()) for a, b in zip(net, exported, strict=True)]


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    error = float((a - b).abs().max() / a.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return error if error == error else float("inf")  # NaN is no equality


def without_twin(one: Detections, other: Detections) -> int:
    """How many of `one`, clearly above the confidence, have no twin in `other`."""
    sure = one.scores > CONFIDENCE + SCORE
    boxes, scores, labels = one.boxes[sure], one.scores[sure], one.labels[sure]
    if not len(other.boxes):
        return len(boxes)
    near = (boxes[:, None] - other.boxes[None]).abs().amax(2) <= BOX  # [n, m]
    near &= (scores[:, None] - other.scores[None]).abs() <= SCORE
    near &= labels[:, None] == other.labels[None]
    return int((~near.any(1)).sum())


def dense_head(classes: int, iou: float = 0.6) -> Head:
    """Of outputs whose first is [B, 4 + C + …, N]: cx, cy, w, h in pixels and a probability per class."""

    def decode(outputs: list[Tensor]) -> list[Detections]:
        centre, size, scores = outputs[0][:, : 4 + classes].mT.split((2, 2, classes), 2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], 2)
        return non_maximum_suppression(boxes, scores, DecodeSettings(CONFIDENCE - SCORE, iou))

    return Head(decode)


def chosen_rows(scale: float = 1.0) -> Head:
    """Of outputs whose first is [B, n, 6 + …], detections that the head has chosen: box, score, class.

    `scale`: pixels per unit of the boxes (those of RT-DETR are fractions of the image).
    """

    def decode(outputs: list[Tensor]) -> list[Detections]:
        rows = outputs[0].float()
        return [Detections(r[:, :4] * scale, r[:, 4], r[:, 5].round().long()) for r in rows]

    return Head(decode, chosen=True)


def _matched_error(net: list[Tensor], exported: list[Tensor], head: Head) -> float:
    """The largest relative error of all scores in descending order, and of box and score between each sure detection
    and its nearest of the same class."""
    worst = 0.0
    for one, other in zip(head.decode(net), head.decode(exported), strict=True):
        worst = max(worst, _relative(one.scores.sort().values, other.scores.sort().values))
        sure = one.scores > CONFIDENCE + SCORE
        for box, score, label in zip(one.boxes[sure], one.scores[sure], one.labels[sure], strict=True):
            alike = other.labels == label
            away = (other.boxes[alike] - box).abs().amax(1)
            if not len(away):
                return float("inf")
            nearest = int(away.argmin())
            worst = max(worst, float(away[nearest] / box.abs().max()), float(abs(other.scores[alike][nearest] - score)))
    return worst
