"""From the settings of a data set to its images: which reader, which split, what to do with broken items."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dcodp.config import DatasetConfig, custom_files, splits
from dcodp.data import coco, shapes, union, voc, yolo
from dcodp.data.images import map_ahead, probe
from dcodp.data.parsing import Listing, Notes, Problem
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError
from dcodp.progress import track

_LOOK_AHEAD = 64  # images whose files are probed in advance


def load(config: DatasetConfig, root: Path, split: str) -> DetectionSet:
    """The "train", "val" or "test" split as `config` names and limits it; for layout shapes generated if need be.

    With broken=refuse the first broken item raises InputError; files are not decoded here, so a truncated one is
    found when it is read. With broken=skip every file is decoded once, and the items left out are logged in one
    warning. What is not broken but changed in reading (boxes clipped, …) is counted and logged, once for each kind.
    A set without a published size counts as a subset where it holds fewer images than its list.
    """
    listing = open_split(config, root, split)
    images, problems, notes = _collect(config, split, listing)
    _say(config, split, problems, notes)
    if not images:
        raise InputError(f"{config.name} {split} has no readable image under {root}; restore it there")
    published = getattr(config, f"published_{split}")
    return DetectionSet(
        name=config.name,
        split=split,
        classes=listing.classes,
        images=tuple(images),
        published_size=published if published is not None else listing.size,
        category_ids=listing.category_ids,
    )


def open_split(config: DatasetConfig, root: Path, split: str) -> Listing:
    """The split as listed, unread. Raises InputError where the folder, the list or the layout is not there."""
    if split not in splits(config):
        raise InputError(f"split {split!r} is not known; use {', '.join(splits(config))}")
    name = getattr(config, split)
    if config.layout == "shapes":
        return voc.open_split(shapes.ensure(config, root), name, shapes.CLASSES)
    if config.layout == "custom":
        return _open_custom(config, split, name)
    if not root.is_dir():
        raise InputError(
            f"paths.data={root} does not exist; give the folder that holds VOCdevkit or coco, "
            "or use dataset=shapes, which is generated"
        )
    if config.layout == "voc":
        return union.open_split(root, config.name.upper(), name)
    if config.layout == "coco":
        return coco.open_split(root, name)
    raise InputError(f"dataset.layout={config.layout} is not known; use shapes, voc, coco or custom")


def _open_custom(config: DatasetConfig, split: str, name: str) -> Listing:
    files = custom_files(config)
    if "file" in files:
        return yolo.open_split(files["file"], name)
    images = getattr(config, f"{split}_images")
    if not files[split].is_file():
        raise InputError(f"{files[split]} does not exist; set dataset.{split} to a COCO JSON file")
    return coco.open_file(files[split], files[split].parent if images is None else Path(images))


def _say(config: DatasetConfig, split: str, problems: list[Problem], notes: Notes) -> None:
    log = logging.getLogger(__name__)
    if problems:
        log.warning("%s %s: left out\n  %s", config.name, split, "\n  ".join(map(str, problems)))
    for note in notes.summed():
        log.warning("%s %s: %s", config.name, split, note)


def _collect(config: DatasetConfig, split: str, listing: Listing) -> tuple[list[LabelledImage], list[Problem], Notes]:
    images, problems, notes = [], [], Notes()
    limit = getattr(config, f"{split}_limit")
    if limit is not None and limit < 1:
        raise InputError(f"dataset.{split}_limit={limit} is out of range; use 1 or more, or null for all images")
    items = probed(listing.items) if config.broken == "skip" else listing.items
    for item in track(items, f"reading {config.name} {split}", listing.size):
        if isinstance(item, LabelledImage):
            images.append(item)
        elif not item.fatal:
            notes.add(item)
        elif config.broken == "refuse":
            raise InputError(f"{item}; repair it, or leave such images out with dataset.broken=skip")
        else:
            problems.append(item)
        if len(images) == limit:
            break
    return images, problems, notes


def probed(items: Iterable[LabelledImage | Problem]) -> Iterator[LabelledImage | Problem]:
    """The same stream, but an image whose file cannot be decoded gives way to the problem."""

    def readable(item: LabelledImage | Problem) -> LabelledImage | Problem:
        problem = probe(item) if isinstance(item, LabelledImage) else None
        return problem or item

    return map_ahead(readable, items, _LOOK_AHEAD)


def fingerprint(detection_set: DetectionSet) -> str:
    """A short hash of classes, ids, sizes, boxes, labels, flags and file sizes; the pixels are not read."""
    digest = hashlib.sha256(json.dumps([detection_set.classes, detection_set.category_ids]).encode())
    for image in detection_set.images:
        try:
            file_size = image.path.stat().st_size
        except OSError as error:
            raise InputError(f"{image.path} is missing ({error.strerror}); restore it") from error
        digest.update(json.dumps([image.id, image.width, image.height, file_size]).encode())
        for array in (image.boxes, image.labels, image.difficult, image.crowd, image.area):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def class_counts(detection_set: DetectionSet) -> dict[str, int]:
    """Class name → number of objects, difficult ones and crowds included."""
    labels = np.concatenate([np.zeros(0, np.int64), *(image.labels for image in detection_set.images)])
    counts = np.bincount(labels, minlength=len(detection_set.classes))
    return dict(zip(detection_set.classes, counts.tolist(), strict=True))
