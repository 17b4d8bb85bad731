"""Training batches: mosaic, random scale and shift, colour jitter and flips by ultralytics, the same in every run.

Each image's augmentation is seeded by (seed, epoch, place in the epoch), so the batches of an epoch depend on nothing
else: not on earlier epochs, on a resume, on the number of worker processes or on who else draws random numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dcodp import _ultralytics
from dcodp.config import TrainSettings
from dcodp.data.images import map_ahead, read_image
from dcodp.data.types import Batch, DetectionSet, LabelledImage
from dcodp.errors import InputError
from dcodp.progress import track

CACHE_BYTES = 2**30  # decoded images are kept in memory when all of them fit in here
HSV = (0.015, 0.7, 0.4)  # ultralytics' gains of hue, saturation and value, at hsv=1
AHEAD = 8  # images decoded in advance while the cache fills

Example = tuple[np.ndarray, np.ndarray, np.ndarray]  # image [3, S, S] uint8, boxes [n, 4], labels [n]


class TrainingBatches:
    """The augmented batches of a detection set, epoch by epoch.

    An epoch shows every image once, in an order drawn from (seed, epoch), in `len` batches whose sizes differ by one
    at most and never exceed `settings.batch`. The last `settings.close_mosaic` epochs are without mosaic. Crowd boxes
    and boxes without area inside their image are left out; VOC's difficult objects are kept. `before`: how many epochs
    came before these `settings.epochs`, of the larger nets that pruning in steps trains first; what was drawn for them
    is not drawn again.
    """

    def __init__(
        self, detection_set: DetectionSet, image_size: int, settings: TrainSettings, seed: int, before: int = 0
    ):
        if not len(detection_set):
            raise InputError(f"{detection_set.name} {detection_set.split} has no images; training needs at least one")
        self.detection_set, self.image_size, self.settings, self.seed = detection_set, image_size, settings, seed
        self.before = before
        self._source = _Source(detection_set, image_size)

    def __len__(self) -> int:
        return -(-len(self.detection_set) // self.settings.batch)

    def epoch(self, number: int, rank: int = 0, devices: int = 1) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0); with several devices this one's share of each batch.

        Raises InputError naming the file where an image cannot be read, and where batches are smaller than `devices`.
        """
        if len(self.detection_set) // len(self) < devices:
            raise InputError(f"batch={self.settings.batch} is too small for {devices} devices; use a larger one")
        self._source.fill()
        drawn_by = [self.seed, self.before + number]
        order = np.random.default_rng(drawn_by).permutation(len(self.detection_set))
        shares = [share[rank::devices] for share in np.array_split(_places(order), len(self))]
        examples = _Examples(self._source, self._transforms(number), drawn_by)
        for batch in _load(examples, shares, self.settings.workers):
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def _transforms(self, number: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
        mosaic = number < self.settings.epochs - self.settings.close_mosaic
        return _transforms(self._source, self.image_size, self.settings, mosaic)


def _places(order: np.ndarray) -> np.ndarray:
    """(place in the epoch, image index) [n, 2]."""
    return np.stack([np.arange(len(order)), order], axis=1)


def _transforms(source: _Source, size: int, settings: TrainSettings, mosaic: bool) -> Callable[..., dict[str, Any]]:
    """Ultralytics' transforms for detection, without the optional ones that depend on what else is installed."""
    from ultralytics.data import augment

    return augment.Compose(
        [
            *([augment.Mosaic(source, imgsz=size, p=settings.mosaic)] if mosaic else []),
            augment.RandomPerspective(translate=settings.translate, scale=settings.scale, size=(size, size)),
            augment.RandomHSV(*(gain * settings.hsv for gain in HSV)),
            augment.RandomFlip(p=settings.flip, direction="horizontal"),
        ]
    )


class _Source:
    """Images and boxes as ultralytics' transforms ask for them; nothing is written beside the images."""

    cache = "ram"  # tells Mosaic to draw from all images rather than from the recently loaded

    def __init__(self, detection_set: DetectionSet, image_size: int):
        _ultralytics.prepare()
        self.images, self.image_size = detection_set.images, image_size
        self.targets = [_targets(image) for image in self.images]
        self.pixels: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def fill(self) -> None:
        """Decodes all images into memory, once, where they fit."""
        if self.pixels is not None or sum(3 * w * h for w, h in map(self._size, self.images)) > CACHE_BYTES:
            return
        decoded = map_ahead(self._read, self.images, AHEAD)
        self.pixels = list(track(decoded, "reading training images", len(self.images)))

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """BGR pixels scaled to the image size, and boxes in 0…1 of the image, new with every call."""
        from ultralytics.utils.instance import Instances

        image, (boxes, labels) = self.images[index], self.targets[index]
        pixels = self._read(image) if self.pixels is None else self.pixels[index]
        return {
            "im_file": str(image.path),
            "img": pixels,
            "ori_shape": (image.height, image.width),
            "resized_shape": pixels.shape[:2],
            "instances": Instances(boxes.copy(), bbox_format="xyxy", normalized=True),
            "cls": labels,
        }

    def _size(self, image: LabelledImage) -> tuple[int, int]:
        """Width and height once the longest side is the image size; the shorter one is rounded up."""
        longest = max(image.width, image.height)
        return -(-image.width * self.image_size // longest), -(-image.height * self.image_size // longest)

    def _read(self, image: LabelledImage) -> np.ndarray:
        pixels = read_image(image.path, (image.width, image.height))
        pixels = cv2.resize(pixels, self._size(image), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(pixels[..., ::-1])


def _targets(image: LabelledImage) -> tuple[np.ndarray, np.ndarray]:
    """Boxes xmin, ymin, xmax, ymax [n, 4] float32 in 0…1 and labels [n, 1] float32 of what is trained on."""
    size = np.array([image.width, image.height] * 2, np.float32)
    boxes = np.clip(image.boxes.reshape(-1, 4) / size, 0, 1).astype(np.float32)
    keep = ~image.crowd & (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[keep], image.labels[keep].reshape(-1, 1).astype(np.float32)


class _Examples(Dataset):
    """Augmented examples by (place in the epoch, image index). An unreadable image is returned as its error."""

    def __init__(self, source: _Source, transforms: Callable[..., dict[str, Any]], seed: list[int]):
        self.source, self.transforms, self.seed = source, transforms, seed

    def __getitem__(self, where: np.ndarray) -> Example | InputError:
        place, index = map(int, where)
        with _seeded([*self.seed, place]):
            try:
                return _as_arrays(self.transforms(self.source.get_image_and_label(index)))
            except InputError as error:  # a worker process would wrap it into several lines
                return error


def _as_arrays(labels: dict[str, Any]) -> Example:
    """RGB [3, S, S] uint8; boxes cx, cy, w, h [n, 4] float32 in 0…1; labels [n] int64."""
    image, instances = labels["img"], labels["instances"]
    instances.convert_bbox("xywh")
    instances.normalize(image.shape[1], image.shape[0])
    boxes = np.asarray(instances.bboxes, np.float32).reshape(-1, 4)
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)), boxes, labels["cls"].reshape(-1).astype(np.int64)


@contextmanager
def _seeded(seed: list[int]) -> Iterator[None]:
    """Python's and numpy's global generators, which ultralytics draws from, seeded within and restored after."""
    python, numpy = random.getstate(), np.random.get_state()
    words = np.random.SeedSequence(seed).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _load(examples: _Examples, shares: list[np.ndarray], workers: int) -> Iterator[Batch | InputError]:
    if not workers:
        return (_collate([examples[where] for where in share]) for share in shares)
    loader = DataLoader(
        examples,
        batch_sampler=shares,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator().manual_seed(0),  # else its base seed would come from torch's global generator
    )
    return iter(loader)


def _collate(examples: list[Example | InputError]) -> Batch | InputError:
    for example in examples:
        if isinstance(example, InputError):
            return example
    images, boxes, labels = zip(*examples, strict=True)  # type: ignore[arg-type]
    index = np.repeat(np.arange(len(images)), [len(b) for b in boxes])
    return Batch(*map(torch.from_numpy, (np.stack(images), np.concatenate(boxes), np.concatenate(labels), index)))
