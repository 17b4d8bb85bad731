"""Reader of Ultralytics' layout: a data.yaml that names folders of images and the classes, and a text file per image.

The format is that of docs.ultralytics.com/datasets/detect: images/a.jpg has its objects in labels/a.txt, one on each
line as `class x y width height`, centre and size as shares of the image's width and height. A longer line is an
outline, `class x1 y1 x2 y2 …`, of which the box is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dcodp.data.images import image_size, map_ahead
from dcodp.data.parsing import Listing, Problem, fit_box
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".mpo")
_LOOK_AHEAD = 64  # images whose headers and labels are read in advance

Object = tuple[tuple[float, float, float, float], int]  # box in pixels, class index


def open_split(file: Path, key: str) -> Listing:
    """The images that data.yaml `file` names under `key` ("train", "val", "test"), sorted by their paths.

    Raises InputError where the file, its classes, the folders or all label files are missing; what is wrong with
    single images comes as problems. An image without a label file has no objects, and is mentioned.
    """
    tree = _parse(file)
    classes, root = _classes(file, tree), _root(file, tree)
    if not tree.get(key):
        raise InputError(f"{file} names no images under {key!r}; add them there")
    entries = tree[key] if isinstance(tree[key], list) else [tree[key]]
    images = sorted({image for entry in entries for image in _images(file, root, str(entry))})
    if not images:
        raise InputError(f"{file}: no image lies under {key!r} ({', '.join(map(str, entries))}); correct the path")
    if not any(_label_file(image).is_file() for image in images):
        raise InputError(f"{_label_file(images[0])} is missing, and so are all other labels of {key!r}; put them there")
    return Listing(classes, len(images), _items(file, root, images, classes))


def _parse(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; set dataset.file to a data.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} is not readable YAML: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(tree, dict):
        raise InputError(f"{file} is no data.yaml; it needs the keys train, val and names")
    return tree


def _classes(file: Path, tree: dict[str, Any]) -> tuple[str, ...]:
    """`names` as a list, or as a mapping from 0, 1, 2, … to names."""
    found = tree.get("names")
    if isinstance(found, dict) and sorted(map(str, found)) == sorted(map(str, range(len(found)))):
        found = [name for _, name in sorted((int(number), name) for number, name in found.items())]
    if not isinstance(found, list) or not found:
        raise InputError(f"{file} needs `names`: a list of class names, or one for each number from 0 on")
    if len(set(map(str, found))) < len(found) or tree.get("nc", len(found)) != len(found):
        raise InputError(f"{file} has {len(found)} names that do not fit (nc={tree.get('nc')}, or a name is repeated)")
    return tuple(map(str, found))


def _root(file: Path, tree: dict[str, Any]) -> Path:
    """What paths in the file are relative to: its own folder, or `path`, itself relative to that or to where we are."""
    if not tree.get("path"):
        return file.parent
    places = [file.parent / str(tree["path"]), Path(str(tree["path"]))]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{file}: its path {tree['path']} is no folder (looked for {places[0]}); correct it")


def _images(file: Path, root: Path, entry: str) -> list[Path]:
    """The images of one entry: of a folder and those below it, or listed in a text file."""
    place = root / entry
    if not place.exists() and entry.startswith("../"):  # as Roboflow writes folders that lie beside data.yaml
        place = root / entry[3:]
    if place.is_dir():
        return [path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES]
    if not place.is_file():
        raise InputError(f"{file}: {place} does not exist; put the images there or correct the entry {entry}")
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {place} is no list of images ({error}); correct the entry {entry}") from error
    return [Path(os.path.normpath(place.parent / line.strip())) for line in lines if line.strip()]


def _label_file(image: Path) -> Path:
    """…/images/…/a.jpg → …/labels/…/a.txt (the last folder of that name), else a.txt beside the image."""
    parts = list(image.parts)
    for number in range(len(parts) - 2, -1, -1):
        if parts[number] == "images":
            parts[number] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _items(file: Path, root: Path, images: list[Path], classes: tuple[str, ...]) -> Iterator[LabelledImage | Problem]:
    for items in map_ahead(lambda image: _image(root, image, classes), images, _LOOK_AHEAD):
        yield from items
    bare = [image for image in images if not _label_file(image).is_file()]
    if bare:
        what = f"describes {len(bare)} images without a label file, taken as images without objects: {bare[0]} first"
        yield Problem(file, what, fatal=False)


def _image(root: Path, image: Path, classes: tuple[str, ...]) -> list[LabelledImage | Problem]:
    try:
        width, height = image_size(image)
    except ValueError as error:
        return [Problem(image, str(error))]
    objects, problems = _objects(_label_file(image), width, height, classes)
    if any(problem.fatal for problem in problems):
        return [*problems]
    key = image.relative_to(root) if image.is_relative_to(root) else image
    return [*problems, _labelled(key.as_posix(), image, width, height, objects)]


def _objects(file: Path, width: int, height: int, classes: tuple[str, ...]) -> tuple[list[Object], list[Problem]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return [], []
    except (OSError, UnicodeDecodeError) as error:
        return [], [Problem(file, f"cannot be read as text ({error})")]
    objects, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            found = _object(line.split(), width, height, classes) if line.strip() else None
        except ValueError as error:
            problems.append(Problem(file, f"line {number} {error}"))
            continue
        if found in objects:
            problems.append(Problem(file, f"line {number} repeats an object, which is left out", fatal=False))
        elif found is not None:
            objects.append(found)
    return objects, problems


def _object(words: list[str], width: int, height: int, classes: tuple[str, ...]) -> Object:
    try:
        label, *shares = map(float, words)
    except ValueError:
        raise ValueError("is no row of numbers") from None
    if label not in range(len(classes)):
        raise ValueError(f"is of unknown class {label:g}; known are 0 to {len(classes) - 1}")
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise ValueError(f"has {len(shares)} numbers after the class; a box has 4, an outline 6, 8, 10 …")
    if not all(-0.01 <= share <= 1.01 for share in shares):
        raise ValueError("has a coordinate that is no share of the image's width or height (0 to 1)")
    x, y, X, Y = _corners(shares)
    return fit_box((x * width, y * height, X * width, Y * height), width, height), int(label)


def _corners(shares: list[float]) -> tuple[float, float, float, float]:
    """xmin, ymin, xmax, ymax of a box (centre and size) or of an outline (points)."""
    if len(shares) == 4:
        x, y, w, h = shares
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return min(shares[0::2]), min(shares[1::2]), max(shares[0::2]), max(shares[1::2])


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
