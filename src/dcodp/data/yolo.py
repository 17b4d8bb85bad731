"""Reader of Ultralytics' layout: a data.yaml that names folders of images and the classes, and a text file per image.

The format is that of docs.ultralytics.com/datasets: images/a.jpg has its objects in labels/a.txt, one on each line
(`label_rows`). Shares are of the picture as it is seen, turned by its EXIF orientation, as ultralytics reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dcodp.data import data_yaml
from dcodp.data.images import image_size, map_ahead
from dcodp.data.label_rows import OUTLINE, Object, RowFormat, looks_like_poses, read_lines, read_rows
from dcodp.data.parsing import Listing, Notes, Problem
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError

_LOOK_AHEAD = 64  # images whose headers and labels are read in advance
_SAMPLE = 64  # label files from which it is told whether rows hold keypoints


def open_split(file: Path, key: str) -> Listing:
    """The images that data.yaml `file` names under `key` ("train", "val", "test"), sorted by their paths.

    Raises InputError where the file, its classes, the folders or all label files are missing, and where rows hold
    keypoints that it does not tell of; what is wrong with single images comes as problems. An image without a label
    file has no objects, and is mentioned.
    """
    tree = data_yaml.read(file)
    classes, known = data_yaml.classes(file, tree)
    keypoints, root = data_yaml.keypoints(file, tree), data_yaml.root(file, tree)
    images = data_yaml.images(file, tree, key)
    require_labels(images, key)
    if keypoints is None:
        _refuse_poses(file, images)
    return Listing(classes, len(images), _items(file, root, images, RowFormat(known, keypoints or (0, 0))))


def require_labels(images: Sequence[Path], key: str) -> None:
    """Raises InputError where not one image has its label file: the folder is not where it should be."""
    if not any(label_file(image).is_file() for image in images):
        raise InputError(f"{label_file(images[0])} is missing, and so are all other labels of {key!r}; put them there")


def _refuse_poses(file: Path, images: list[Path]) -> None:
    """Raises InputError where the long rows of the first label files are a box with keypoints, not outlines."""
    rows = [row for image in images[:_SAMPLE] for row in _long_rows(label_file(image))]
    if looks_like_poses(rows):
        raise InputError(
            f"{file}: rows as in {label_file(images[0]).parent} look like boxes with keypoints ({len(rows[0])} numbers "
            f"after the class); add kpt_shape: [number, 2 or 3], or kpt_shape: [0, 0] if they are outlines"
        )


def _long_rows(file: Path) -> list[list[float]]:
    """The numbers after the class of rows that are longer than a box; nothing where the file cannot be read."""
    try:
        rows = [list(map(float, line.split()))[1:] for line in read_lines(file)]
    except (OSError, ValueError):  # said when the images are read
        return []
    return [row for row in rows if len(row) > 5]


def label_file(image: Path) -> Path:
    """…/images/…/a.jpg → …/labels/…/a.txt (the last folder of that name), else a.txt beside the image."""
    parts = list(image.parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "images":
            parts[number] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _items(file: Path, root: Path, images: list[Path], form: RowFormat) -> Iterator[LabelledImage | Problem]:
    outlines = Notes()
    try:
        for items in map_ahead(lambda image: _image(root, image, form), images, _LOOK_AHEAD):
            for item in items:
                if isinstance(item, Problem) and item.kind == OUTLINE:
                    outlines.add(item)
                else:
                    yield item
    finally:  # also where a limit of images ends the reading
        for note in outlines.summed():  # nothing is wrong with these
            logging.getLogger(__name__).warning("%s: %s", file, note)
    bare = [image for image in images if not label_file(image).is_file()]
    if bare:
        what = f"describes {len(bare)} images without a label file, taken as images without objects: {bare[0]} first"
        yield Problem(file, what, fatal=False)


def _image(root: Path, image: Path, form: RowFormat) -> list[LabelledImage | Problem]:
    try:
        width, height = image_size(image)
    except ValueError as error:
        return [Problem(image, str(error))]
    objects, problems = read_rows(label_file(image), width, height, form)
    if any(problem.fatal for problem in problems):
        return [*problems]
    key = image.relative_to(root) if image.is_relative_to(root) else image
    return [*problems, _labelled(key.as_posix(), image, width, height, objects)]


def _labelled(key: str, path: Path, width: int, height: int, objects: list[Object]) -> LabelledImage:
    return LabelledImage(
        id=key,
        path=path,
        width=width,
        height=height,
        boxes=np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        labels=np.array([label for _, label in objects], np.int64),
        difficult=np.zeros(len(objects), bool),
        crowd=np.zeros(len(objects), bool),
    )
