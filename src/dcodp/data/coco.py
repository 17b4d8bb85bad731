"""Reader of the COCO layout: coco/annotations/instances_<split>.json beside coco/<split>/*.jpg.

The format is that of cocodataset.org (Lin et al., "Microsoft COCO: Common Objects in Context"): boxes are x, y,
width, height with the image's corner at (0, 0); category ids have gaps, so class indices follow their order. Other
tools' files are read as well: ids written as text, words as ids, sizes written as 96.0.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcodp.data.parsing import CLIPPED, Listing, Problem, fit_box, gather, names, whole
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError
from dcodp.progress import waiting


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    area: float  # px²


def open_split(root: Path, split: str) -> Listing:
    """The images of instances_<split>.json, where `root` holds the folder coco or is it.

    Raises InputError where the annotation file is missing, and as `open_file` does.
    """
    base = root / "coco" if (root / "coco").is_dir() else root
    file, folder = base / "annotations" / f"instances_{split}.json", base / split
    if not file.is_file():
        there = names((base / "annotations").glob("instances_*.json"))
        remedy = "set paths.data, or let `dcodp data fetch coco2017` bring it"
        raise InputError(f"{file} does not exist (there: {there}); {remedy}")
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
        category_ids=tuple(key for key in categories if isinstance(key, int)),
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


def _categories(file: Path, entries: list[Any]) -> dict[Key, str]:
    """Category id → name: ids that are numbers ascending, others ("car") as they are listed."""
    try:
        found = {_key(entry["id"]): str(entry["name"]) for entry in entries}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} has a category without id and name; replace it with COCO's own") from error
    if not found or len(found) < len(entries):
        raise InputError(f"{file} needs categories, each with an id of its own; correct it")
    if len(kinds := {type(key) for key in found}) > 1:
        raise InputError(f"{file} has categories with numbers as ids and others with words; give all of them numbers")
    return dict(sorted(found.items())) if kinds == {int} else found


def _key(value: Any) -> Key:
    """An id as it is compared: a whole number also where it is written as 3.0 or "3", else the text itself."""
    if (number := whole(value)) is not None:
        return number
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"has an id that is no whole number and no text: {value!r}")
    return value.strip()


def _items(
    file: Path, folder: Path, tree: dict[str, list[Any]], labels: dict[Key, int]
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


Key = int | str  # an id
Numbered = list[tuple[int, dict[str, Any]]]  # annotations with their place in the file


def _by_image(tree: dict[str, list[Any]]) -> tuple[dict[Key, Numbered], list[int]]:
    """Image id → its annotations, and the places of those that have no such image."""
    listed = (_id_of(image, "id") for image in tree["images"])
    found: dict[Key, Numbered] = {key: [] for key in listed if key is not None}
    homeless = []
    for number, entry in enumerate(tree["annotations"]):
        key = _id_of(entry, "image_id")
        if key in found:
            found[key].append((number, entry))
        else:
            homeless.append(number)
    return found, homeless


def _id_of(entry: Any, field: str) -> Key | None:
    try:
        return _key(entry[field])
    except (KeyError, TypeError, ValueError):
        return None


def _objects(
    file: Path, name: str, annotations: Numbered, width: int, height: int, labels: dict[Key, int]
) -> tuple[list[_Object], list[Problem]]:
    entries = [(f"annotations[{number}] of {name}", entry) for number, entry in annotations]
    return gather(file, entries, lambda entry: _object(entry, width, height, labels))


def _entry(image: Any) -> tuple[Key, str, int, int]:
    """id, file name, width and height of one image."""
    try:
        key, name, *size = (image[field] for field in ("id", "file_name", "width", "height"))
    except (KeyError, TypeError):
        raise ValueError("lacks id, file_name, width or height") from None
    width, height = map(whole, size)
    if width is None or height is None or min(width, height) < 1:
        raise ValueError("has a width or height that is no positive whole number")
    if not isinstance(name, str) or not name:
        raise ValueError("has a file_name that is no text")
    return _key(key), name, width, height


def _object(entry: dict[str, Any], width: int, height: int, labels: dict[Key, int]) -> tuple[_Object, dict[str, str]]:
    if (category := _id_of(entry, "category_id")) not in labels:
        raise ValueError(f"is of unknown category {entry.get('category_id')!r}")
    try:
        x, y, w, h = (float(value) for value in entry["bbox"])
        area = float(entry.get("area", w * h))
    except (KeyError, TypeError, ValueError):
        raise ValueError("has no bbox of four numbers, or an area that is none") from None
    if (crowd := entry.get("iscrowd", 0)) not in (0, 1):
        raise ValueError(f"has iscrowd {crowd!r}; write 0 or 1")
    if not math.isfinite(area):
        raise ValueError("has an area that is not finite")
    box, reaches_out = fit_box((x, y, x + w, y + h), width, height)
    return _Object(box, labels[category], bool(crowd), area), {CLIPPED: reaches_out}


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
