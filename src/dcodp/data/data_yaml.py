"""Ultralytics' data.yaml: class names, where the images of a split lie, and the shape of keypoints."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import yaml

from dcodp.data.label_rows import read_lines
from dcodp.data.parsing import whole
from dcodp.errors import InputError

# What ultralytics takes for images in a folder (data/utils.py, IMG_FORMATS); those that PIL lacks are named when read.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".mpo",
    ".avif",
    ".jp2",
    ".dng",
    ".heic",
    ".heif",
)
_MOST = 100_000  # class numbers beyond are a mistake


def read(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; give the path of a data.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} is not readable YAML: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(tree, dict):
        raise InputError(f"{file} is no data.yaml; it needs the keys train, val and names")
    return tree


def classes(file: Path, tree: dict[str, Any]) -> tuple[tuple[str, ...], frozenset[int]]:
    """The name of each class number from 0 on, and the numbers that have one.

    `names` is a list or a mapping from numbers. A number that a mapping leaves out keeps its place, as a detector's
    outputs are numbered, under the name that ultralytics gives to classes without one; so do all with `nc` alone.
    """
    names, number = _names(file, tree), None if tree.get("nc") is None else whole(tree["nc"])
    found = tuple(names.get(k, f"class_{k}") for k in range(max(names) + 1))
    fits = tree.get("nc") is None or number in (len(names), len(found))
    if len(set(found)) < len(found) or not fits:
        raise InputError(
            f"{file} has {len(names)} names that do not fit (nc={tree.get('nc')}, or a name is repeated); correct them"
        )
    return found, frozenset(names)


def _names(file: Path, tree: dict[str, Any]) -> dict[int, str]:
    found, number = tree.get("names"), whole(tree.get("nc"))
    if found is None and number is not None and 0 < number <= _MOST:
        found = [f"class_{k}" for k in range(number)]
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not found or not all(_is_class(key) for key in found):
        raise InputError(f"{file} needs `names`: a list of class names, or a name for each class number")
    return {int(whole(key) or 0): str(name) for key, name in found.items()}


def _is_class(key: Any) -> bool:
    return (number := whole(key)) is not None and 0 <= number <= _MOST


def keypoints(file: Path, tree: dict[str, Any]) -> tuple[int, int] | None:
    """kpt_shape: how many keypoints, and numbers for each; (0, 0) says that rows have none, None says nothing."""
    if (found := tree.get("kpt_shape")) is None:
        return None
    shape = [whole(value) for value in found] if isinstance(found, list) else []
    if shape == [0, 0]:
        return 0, 0
    if len(shape) != 2 or not shape[0] or shape[0] < 1 or shape[1] not in (2, 3):
        raise InputError(f"{file} has kpt_shape {found}; write [number of keypoints, 2 or 3 numbers for each]")
    return shape[0], shape[1]


def root(file: Path, tree: dict[str, Any]) -> Path:
    """What paths in the file are relative to: its own folder, or `path`, itself relative to that or to where we are."""
    if not tree.get("path"):
        return file.parent
    places = [file.parent / str(tree["path"]), Path(str(tree["path"]))]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{file}: its path {tree['path']} is no folder (looked for {places[0]}); correct it")


def images(file: Path, tree: dict[str, Any], key: str) -> list[Path]:
    """The images under `key` ("train", "val", "test"), sorted: folders, patterns, lists in text files, or several."""
    found = tree.get(key) or (tree.get("validation") if key == "val" else None)  # as ultralytics takes it for val
    if not found:
        there = ", ".join(name for name in ("train", "val", "test") if tree.get(name)) or "none"
        raise InputError(f"{file} names no images under {key!r} (splits there: {there}); add them there")
    entries, base = list(map(str, found if isinstance(found, list) else [found])), root(file, tree)
    images = sorted({image for entry in entries for image in _of_entry(file, base, entry)})
    if not images:
        raise InputError(f"{file}: no image lies under {key!r} ({', '.join(entries)}); correct the path")
    return images


def _of_entry(file: Path, base: Path, entry: str) -> list[Path]:
    places = _places(base, entry)
    if not places and entry.startswith("../"):  # as Roboflow writes folders that lie beside data.yaml
        places = _places(base, entry[3:])
    if not places:
        raise InputError(f"{file}: {base / entry} does not exist; put the images there or correct the entry {entry}")
    return [image for place in places for image in _of_place(file, base, place, entry)]


def _places(base: Path, entry: str) -> list[Path]:
    """The file or folder of this name, else all that fit it as a pattern (*, ?, [a-z], ** for any folders)."""
    if (base / entry).exists():
        return [base / entry]
    return list(map(Path, sorted(glob.glob(os.path.join(glob.escape(str(base)), entry), recursive=True))))


def _of_place(file: Path, base: Path, place: Path, entry: str) -> list[Path]:
    if place.is_dir():
        return [path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES]
    if place.suffix.lower() in SUFFIXES:
        return [place]
    try:
        lines = [line.strip() for line in read_lines(place) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {place} is no list of images ({error}); correct the entry {entry}") from error
    return [_listed(line, place.parent, base) for line in lines]


def _listed(line: str, *folders: Path) -> Path:
    """A line of a list: relative to the list, else to the data set, else to where we are; the first that is there."""
    places = [Path(os.path.normpath(folder / line)) for folder in (*folders, Path())]
    return next((place for place in places if place.is_file()), places[0])
