"""Pixels: reading and checking image files, the square that detectors see, and batches of such squares.

The letterbox is that of ultralytics' validation at a square size (the published YOLOv8 figures rest on it): the
longest side is scaled to `size` with bilinear interpolation, the other side's length is rounded up, and the rest
is filled with grey, evenly on both sides. cv2 and PIL release the interpreter, so files are decoded in threads.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcodp.data.parsing import Problem
from dcodp.data.pixels import UNREADABLE, is_deep, orientation, rgb, seen, seen_size
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError

GREY = 114
THREADS = min(8, os.cpu_count() or 1)
Boxes = TypeVar("Boxes", np.ndarray, Tensor)
Given = TypeVar("Given")
Made = TypeVar("Made")


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The pixels as RGB [H, W, 3] uint8; `size` is the width and height that the annotation says.

    The picture is turned and mirrored as its EXIF orientation asks, as ultralytics (cv2) reads it and as browsers and
    annotation tools show it. Only where `size` fits the stored picture and not the turned one (quarter turns of an
    oblong picture), the annotation was made on stored pixels, and these are given: half turns, mirrors and square
    pictures look the same either way, so they are always turned. Raises InputError naming the file where it is
    missing, no image, truncated, of another size, or in numbers that are no picture.
    """
    try:
        with Image.open(path) as stored:
            turn, shown = orientation(stored), seen_size(stored)
            if size == stored.size != shown:
                turn = 1
            pixels = seen(rgb(stored), turn)
    except UNREADABLE as error:
        raise InputError(f"{path} {_reason(error)}; replace it, or leave it out with dataset.broken=skip") from error
    height, width, _ = pixels.shape
    if size is not None and (width, height) != size:
        raise InputError(f"{path} {_other_size((width, height), size)}; replace it or correct the annotation")
    return pixels


def probe(image: LabelledImage) -> Problem | None:
    """What is wrong with the file of this image: nothing, or not readable to its end, or of another size."""
    size = (image.width, image.height)
    try:
        with Image.open(image.path) as stored:
            found, turned = stored.size, seen_size(stored)
            stored.draft("RGB", (1, 1))  # JPEG: every byte is still parsed, but fewer pixels are computed
            stored.load()
            if is_deep(stored):
                rgb(stored)
    except UNREADABLE as error:
        return Problem(image.path, _reason(error))
    return None if size in (found, turned) else Problem(image.path, _other_size(found, size))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as the picture is seen, turned by its EXIF orientation; ValueError says what is wrong."""
    try:
        with Image.open(path) as stored:
            return seen_size(stored)
    except UNREADABLE as error:
        raise ValueError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"is not a readable image ({error})"


def _other_size(found: tuple[int, int], annotated: tuple[int, int]) -> str:
    return "is {}×{} px, its annotation says {}×{} px".format(*found, *annotated)


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in its square. The two scales differ by less than a pixel's rounding of the shorter side."""

    scale_x: float  # pixels of the square per pixel of the image
    scale_y: float
    pad_x: int  # pixels left of the image
    pad_y: int  # pixels above it
    width: int  # of the image
    height: int

    @property
    def scale(self) -> float:
        return min(self.scale_x, self.scale_y)

    def to_image(self, boxes: Boxes) -> Boxes:
        """xmin, ymin, xmax, ymax [n, 4] in pixels of the square → of the image, clipped to it; a new array."""
        moved: Any = boxes * 1.0
        moved[:, 0::2] = ((moved[:, 0::2] - self.pad_x) / self.scale_x).clip(0, self.width)
        moved[:, 1::2] = ((moved[:, 1::2] - self.pad_y) / self.scale_y).clip(0, self.height)
        return moved

    def to_square(self, boxes: Boxes) -> Boxes:
        """xmin, ymin, xmax, ymax [n, 4] in pixels of the image → of the square; a new array."""
        moved: Any = boxes * 1.0
        moved[:, 0::2] = moved[:, 0::2] * self.scale_x + self.pad_x
        moved[:, 1::2] = moved[:, 1::2] * self.scale_y + self.pad_y
        return moved


def letterbox(image: np.ndarray, size: int) -> tuple[np.ndarray, Letterbox]:
    """RGB [H, W, 3] uint8 → the square [size, size, 3] uint8 and where the image lies in it."""
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    w, h = (min(math.ceil(side * ratio), size) for side in (width, height))
    if (w, h) != (width, height):
        image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    left, top = (size - w) // 2, (size - h) // 2  # an odd pixel of padding goes right and below
    square = np.full((size, size, 3), GREY, np.uint8)
    square[top : top + h, left : left + w] = image
    return square, Letterbox(w / width, h / height, left, top, width, height)


def evaluation_batches(
    detection_set: DetectionSet, image_size: int, batch: int
) -> Iterator[tuple[Tensor, list[LabelledImage], list[Letterbox]]]:
    """All images in order: squares [B, 3, S, S] uint8 RGB, their annotations, where they lie in the squares.

    The next batch is decoded while the caller works on this one; the last may be smaller. Raises InputError for a
    file that cannot be read.
    """
    return _batches(detection_set.images, image_size, batch)


def calibration_images(detection_set: DetectionSet, n: int, image_size: int, batch: int, seed: int) -> Iterator[Tensor]:
    """n images drawn without replacement (all, with a notice, where there are fewer): [B, 3, S, S] uint8 RGB."""
    available = len(detection_set)
    if available < n:
        message = "%s %s has %d images only, so calibration uses these instead of %d"
        logging.getLogger(__name__).warning(message, detection_set.name, detection_set.split, available, n)
    drawn = np.random.default_rng(seed).permutation(available)[:n]
    for squares, _, _ in _batches([detection_set.images[k] for k in drawn], image_size, batch):
        yield squares


def _batches(
    images: Sequence[LabelledImage], image_size: int, batch: int
) -> Iterator[tuple[Tensor, list[LabelledImage], list[Letterbox]]]:
    def square(image: LabelledImage) -> tuple[np.ndarray, LabelledImage, Letterbox]:
        pixels, place = letterbox(read_image(image.path, (image.width, image.height)), image_size)
        return pixels, image, place

    squares = map_ahead(square, images, ahead=batch)
    while chunk := list(islice(squares, batch)):
        pixels, labelled, places = zip(*chunk, strict=True)
        yield torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), list(labelled), list(places)


def map_ahead(function: Callable[[Given], Made], items: Iterable[Given], ahead: int) -> Iterator[Made]:
    """function of every item, computed in threads and given in order, never more than `ahead` items in advance."""
    pending: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # the caller stopped early, or an item failed
            for future in pending:
                future.cancel()
