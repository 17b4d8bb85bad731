"""Labelled calibration batches: letterboxed images as in validation, with their boxes, nothing augmented."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from dcodp.data.images import Letterbox, evaluation_batches
from dcodp.data.types import Batch, DetectionSet, LabelledImage


def calibration_batches(detection_set: DetectionSet, n: int, image_size: int, batch: int, seed: int) -> Iterator[Batch]:
    """n images drawn without replacement (all, with a notice, where there are fewer), in batches.

    The same seed draws the same images as `calibration_images`. Crowd boxes are left out, as in training. Raises
    InputError for a file that cannot be read.
    """
    available = len(detection_set)
    if available < n:
        message = "%s %s has %d images only, so calibration uses these instead of %d"
        logging.getLogger(__name__).warning(message, detection_set.name, detection_set.split, available, n)
    drawn = np.random.default_rng(seed).permutation(available)[:n]
    subset = dataclasses.replace(detection_set, images=tuple(detection_set.images[k] for k in drawn))
    for squares, images, places in evaluation_batches(subset, image_size, batch):
        targets = [_targets(image, place, image_size) for image, place in zip(images, places, strict=True)]
        index = torch.arange(len(images)).repeat_interleave(torch.tensor([len(labels) for _, labels in targets]))
        yield Batch(squares, torch.cat([b for b, _ in targets]), torch.cat([labels for _, labels in targets]), index)


def _targets(image: LabelledImage, place: Letterbox, size: int) -> tuple[Tensor, Tensor]:
    """Boxes cx, cy, w, h [n, 4] float32 as fractions of the square, and labels [n] int64."""
    solid = ~image.crowd & (image.boxes[:, 2:] > image.boxes[:, :2]).all(1)
    boxes = place.to_square(torch.from_numpy(image.boxes[solid]).float()).clamp(0, size) / size
    return box_convert(boxes, "xyxy", "cxcywh"), torch.from_numpy(image.labels[solid])
