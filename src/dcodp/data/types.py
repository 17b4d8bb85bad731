"""What every reader returns and every loader takes: images with boxes, named sets of them, batches, detections."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImage:
    """One image of a detection set; the pixels stay on disk.

    `boxes` are xmin, ymin, xmax, ymax in pixels, continuous coordinates with the image's corner at (0, 0)
    (a VOC box x, y, X, Y, 1-based and inclusive, becomes x-1, y-1, X, Y).
    """

    id: str
    path: Path
    width: int
    height: int
    boxes: np.ndarray  # [n, 4] float32
    labels: np.ndarray  # [n] int64, class indices from 0
    difficult: np.ndarray  # [n] bool, VOC only, else all False
    crowd: np.ndarray  # [n] bool, COCO only, else all False
    area: np.ndarray | None = (
        None  # [n] float32, px²: COCO's own (of the outline), which its size ranges go by; else None
    )


@dataclass(frozen=True)
class DetectionSet:
    """One split of a data set: images in a fixed order, class names, and how much of the published split it is."""

    name: str  # "voc2007"
    split: str  # "train", "val" or "test"
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    published_size: int | None = None  # images in the official split; None where there is none
    category_ids: tuple[int, ...] = field(default=())  # COCO category id of each class; empty: 1, 2, 3, …

    @property
    def subset(self) -> bool:
        """True where fewer images are present than the published split has: figures on it are subset figures."""
        return self.published_size is not None and len(self.images) < self.published_size

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Batch:
    """One training batch, the same for all detectors.

    `images` are letterboxed RGB. `boxes` are cx, cy, w, h as fractions of the letterboxed image.
    """

    images: Tensor  # [B, 3, S, S] uint8
    boxes: Tensor  # [n, 4] float32
    labels: Tensor  # [n] int64
    image_index: Tensor  # [n] int64, the row of `images` that each box belongs to

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))


@dataclass
class Detections:
    """What was found in one image, highest score first; boxes are xmin, ymin, xmax, ymax in input pixels."""

    boxes: Tensor  # [n, 4] float32
    scores: Tensor  # [n] float32
    labels: Tensor  # [n] int64
