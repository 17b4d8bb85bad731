"""What the readers share: a split as a stream of images and problems, and the check of a box against its image.

Readers never stop at a broken item: they say what is wrong with it and go on. Whether that ends the run
(`load`), leaves the image out (`load` with dataset.broken=skip) or is listed (`check`) is decided by the caller.
What is not broken but changed or left out in reading (a box clipped, a row repeated) comes as a problem that is not
fatal; `Notes` counts these by their kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dcodp.data.types import LabelledImage

Given = TypeVar("Given")
Made = TypeVar("Made")
Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax in pixels

# Annotation tools count the first pixel as 0 or 1 and round at the far edge: clipped without a word.
TOLERANCE_PX = 1.0
# A centre further out than this share of the image's side: the box of another image, or x, y, X, Y where a width is
# expected. The share is ultralytics' (data/utils.py, verify_image_label).
OUTSIDE = 0.01

# Kinds of problems that are not fatal, as the rest of a sentence: "12 …".
CLIPPED = "boxes reach out of their images and are clipped to them"
EMPTY = "boxes have no size and are left out"


@dataclass(frozen=True)
class Problem:
    """Something wrong in one file. Where it is not fatal a box was changed or left out, and its image stays."""

    file: Path
    what: str  # continues a sentence that begins with the file: "is missing"
    fatal: bool = True
    kind: str = ""  # of one that is not fatal: what all of its kind in a split have in common

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


@dataclass(frozen=True)
class Listing:
    """One split as its files list it; `items` are read as they are asked for, in the listed order."""

    classes: tuple[str, ...]
    size: int  # images listed
    items: Iterator[LabelledImage | Problem]  # every listed image gives itself or at least one fatal problem
    category_ids: tuple[int, ...] = ()


@dataclass
class Notes:
    """The problems of a split that are not fatal: the first of each kind, and how many there are."""

    first: dict[str, Problem] = field(default_factory=dict)
    number: dict[str, int] = field(default_factory=dict)

    def add(self, problem: Problem) -> None:
        kind = problem.kind or problem.what
        self.first.setdefault(kind, problem)
        self.number[kind] = self.number.get(kind, 0) + 1

    def summed(self) -> list[Problem]:
        """One for each kind: the first one's own words, then how many of its kind there are."""
        return [dataclasses.replace(first, what=self._what(kind, first)) for kind, first in self.first.items()]

    def _what(self, kind: str, first: Problem) -> str:
        return f"{first.what} ({self.number[kind]:,} {first.kind})" if first.kind else first.what


class LeftOut(ValueError):
    """An object that is left out alone, its image staying; `kind` as in Problem."""

    def __init__(self, what: str, kind: str):
        super().__init__(what)
        self.kind = kind


def gather(
    file: Path, entries: Iterable[tuple[str, Given]], read: Callable[[Given], tuple[Made, dict[str, str]]]
) -> tuple[list[Made], list[Problem]]:
    """The objects of one file's entries, each with its place ("line 2"), and what is to be said of them.

    `read` returns an object and kind → words for what was changed in it (none where the words are empty), or raises
    ValueError.
    """
    objects, problems = [], []
    for place, entry in entries:
        try:
            found, said = read(entry)
        except LeftOut as error:
            problems.append(Problem(file, f"{place} {error}", fatal=False, kind=error.kind))
        except ValueError as error:
            problems.append(Problem(file, f"{place} {error}"))
        else:
            objects.append(found)
            problems += [Problem(file, f"{place} {words}", False, kind) for kind, words in said.items() if words]
    return objects, problems


def fit_box(box: Box, width: int, height: int) -> tuple[Box, str]:
    """The box clipped to its image, and what is to be said of it: "" where it lay inside (but for rounding).

    Raises ValueError where a number is not finite and where the centre lies outside the image, LeftOut where nothing
    of the box is left (the published COCO train2017 has two such boxes).
    """
    if not np.isfinite(box).all():
        raise ValueError("has a box with a number that is not finite")
    xmin, ymin, xmax, ymax = box
    if xmax <= xmin or ymax <= ymin:
        raise LeftOut(f"has a box of zero size: {_shown(box)}", EMPTY)
    if not (_holds(width, xmin, xmax) and _holds(height, ymin, ymax)):
        raise ValueError(f"has a box outside its {width}×{height} px image: {_shown(box)}")
    clipped = max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))
    low, high = np.array(clipped, np.float32).reshape(2, 2)  # as they are kept: what float32 cannot tell is no size
    if not (low < high).all():
        raise LeftOut(f"has a box of zero size in its {width}×{height} px image: {_shown(box)}", EMPTY)
    beyond = max(-xmin, -ymin, xmax - width, ymax - height)
    said = f"has a box that reaches out of its {width}×{height} px image: {_shown(box)}"
    return clipped, said if beyond > TOLERANCE_PX else ""


def _holds(side: int, low: float, high: float) -> bool:
    """True where the middle lies on the image's side; a box that rounding moved out lies on it too."""
    slack = max(OUTSIDE * side, TOLERANCE_PX)
    return -slack <= (low + high) / 2 <= side + slack


def _shown(box: Box) -> str:
    return "xmin {:g}, ymin {:g}, xmax {:g}, ymax {:g} (counted from 0)".format(*box)


def whole(value: Any) -> int | None:
    """A whole number as people's files hold it: 96, 96.0, "96", "96.0"; None for anything else."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    text = str(value).strip() if isinstance(value, (float, str)) else ""
    try:
        return int(text) if text.lstrip("-").isdecimal() else _exact(float(text))
    except (ValueError, OverflowError):  # no number, or not finite
        return None


def _exact(number: float) -> int | None:
    return int(number) if number == int(number) else None


def names(paths: Iterable[Path]) -> str:
    """File names without endings, for error messages that say what there is instead."""
    return ", ".join(sorted(path.stem for path in paths)) or "none"
