"""Reader of the COCO layout: coco/annotations/instances_<split>.json beside coco/<split>/*.jpg.

The format is that of cocodataset.org (Lin et al., "Microsoft COCO: Common Objects in Context"): boxes are x, y,
width, height with the image's corner at (0, 0); category ids have gaps, so class indices follow their order.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcodp.data.parsing import Listing, Problem, fit_box, names
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError
from dcodp.progress import waiting


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float  # px²


class _Empty(ValueError):
    """A box without width or height. The published train2017 has two: they are left out, their images stay."""


def open_split(root: Path, split: str) -> Listing:
    """The images of instances_<split>.json, where `root` holds the folder coco or is it.

    Raises InputError where the annotation file is missing, and as `open_file` does.
    """
    base = root / "coco" if (root / "coco").is_dir() else root
    file, folder = base / "annotations" / f"instances_{split}.json", base / split
    if not file.is_file():
        there = names((base / "annotations").glob("instances_*.json"))
        raise InputError(f"{file} does not exist (there: {there}); unpack COCO's annotations there or set paths.data")
    return open_file(file, folder)


def open_file(file: Path, folder: Path) -> Listing:
    """The images of one annotation file in its order, those without objects too; `folder` holds the image files.

    Raises InputError where `folder` is missing or `file` is not in COCO's format; what is wrong with single images
    comes as problems.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; unpack the images that {file.name} lists there")
    with waiting(f"reading {file.name}"):
        tree = _parse(file)
    categories = _categories(file, tree["categories"])
    labels = {category: label for label, category in enumerate(categories)}
    return Listing(
        classes=tuple(categories.values()),
        size=len(tree["images"]),
        items=_items(file, folder, tree, labels),
        category_ids=tuple(categories),
    )


def _parse(file: Path) -> dict[str, list[Any]]:
    try:
        with file.open(encoding="utf-8") as stream:
            tree = json.load(stream, object_hook=_without_outline)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}); replace it with COCO's own") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(tree, dict) or not isinstance(tree.get(key), list):
            raise InputError(f"{file} is not COCO's format: it has no list {key!r}; replace it with COCO's own")
    if not tree["images"]:
        raise InputError(f"{file} lists no images; replace it with COCO's own")
    return tree


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Outlines are most of the file and boxes are all that is needed: dropped while it is read, to save memory."""
    entry.pop("segmentation", None)
    return entry


def _categories(file: Path, entries: list[Any]) -> dict[int, str]:
    """Category id → name, ids ascending."""
    try:
        found = {entry["id"]: str(entry["name"]) for entry in entries}
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} has a category without id and name; replace it with COCO's own") from error
    if not found or len(found) < len(entries) or not all(isinstance(category, int) for category in found):
        raise InputError(f"{file} needs categories, each with a whole number of its own as id; correct it")
    return dict(sorted(found.items()))


def _items(
    file: Path, folder: Path, tree: dict[str, list[Any]], labels: dict[int, int]
) -> Iterator[LabelledImage | Problem]:
    annotations, homeless = _by_image(tree)
    for number in homeless:
        yield Problem(file, f"annotations[{number}] belongs to no image that is listed")
    present, seen = set(os.listdir(folder)), set()
    for number, entry in enumerate(tree["images"]):
        try:
            key, name, width, height = _entry(entry)
            if key in seen:
                raise ValueError(f"repeats the id {key}")
        except ValueError as error:
            yield Problem(file, f"images[{number}] {error}")
            continue
        seen.add(key)
        path = folder / name
        objects, problems = _objects(file, name, annotations[key], width, height, labels)
        if name not in present and not path.is_file():
            problems.append(Problem(path, "is missing"))
        yield from problems
        if not any(problem.fatal for problem in problems):
            yield _labelled(str(key), path, width, height, objects)


Numbered = list[tuple[int, dict[str, Any]]]  # annotations with their place in the file


def _by_image(tree: dict[str, list[Any]]) -> tuple[dict[int, Numbered], list[int]]:
    """Image id → its annotations, and the places of those that have no such image."""
    found: dict[int, Numbered] = {
        image["id"]: [] for image in tree["images"] if isinstance(image, dict) and isinstance(image.get("id"), int)
    }
    homeless = []
    for number, entry in enumerate(tree["annotations"]):
        key = entry.get("image_id") if isinstance(entry, dict) else None
        if isinstance(key, int) and key in found:
            found[key].append((number, entry))
        else:
            homeless.append(number)
    return found, homeless


def _objects(
    file: Path, name: str, annotations: Numbered, width: int, height: int, labels: dict[int, int]
) -> tuple[list[_Object], list[Problem]]:
    objects, problems = [], []
    for number, entry in annotations:
        try:
            objects.append(_object(entry, width, height, labels))
        except ValueError as error:
            problems.append(Problem(file, f"annotations[{number}] of {name} {error}", not isinstance(error, _Empty)))
    return objects, problems


def _entry(image: Any) -> tuple[int, str, int, int]:
    """id, file name, width and height of one image."""
    try:
        key, name, width, height = (image[field] for field in ("id", "file_name", "width", "height"))
    except (KeyError, TypeError):
        raise ValueError("lacks id, file_name, width or height") from None
    if not all(isinstance(value, int) for value in (key, width, height)) or min(width, height) < 1:
        raise ValueError("has an id, width or height that is no (positive) whole number")
    if not isinstance(name, str) or not name:
        raise ValueError("has a file_name that is no text")
    return key, name, width, height


def _object(entry: dict[str, Any], width: int, height: int, labels: dict[int, int]) -> _Object:
    category = entry.get("category_id")
    if not isinstance(category, int) or category not in labels:
        raise ValueError(f"is of unknown category {category!r}")
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
        area = float(entry.get("area", w * h))
    except (KeyError, TypeError, ValueError):
        raise ValueError("has no bbox of four numbers, or an area that is none") from None
    if (crowd := entry.get("iscrowd", 0)) not in (0, 1):
        raise ValueError(f"has iscrowd {crowd!r}; write 0 or 1")
    if w <= 0 or h <= 0:
        raise _Empty(f"has a box of zero size ({w:g}×{h:g} px), which is left out")
    if not math.isfinite(area):
        raise ValueError("has an area that is not finite")
    return _Object(fit_box((x, y, x + w, y + h), width, height), labels[category], bool(crowd), area)


def _labelled(key: str, path: Path, width: int, height: int, objects: list[_Object]) -> LabelledImage:
    return LabelledImage(
        id=key,
        path=path,
        width=width,
        height=height,
        boxes=np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        labels=np.array([o.label for o in objects], np.int64),
        difficult=np.zeros(len(objects), bool),
        crowd=np.array([o.crowd for o in objects], bool),
        area=np.array([o.area for o in objects], np.float32),
    )
