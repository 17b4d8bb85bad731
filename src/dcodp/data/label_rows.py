"""Label files in YOLO's text format: one object on each line, numbers as shares of the image's width and height.

A row is read as what it is (docs.ultralytics.com/datasets; ultralytics' data/utils.py, verify_image_label):

    class x y w h                 a box: centre and size
    class x y w h confidence      a box as predictions are stored; the confidence is left out
    class x y w h, keypoints      a pose, where data.yaml has kpt_shape: its box
    class x1 y1 x2 y2 x3 y3 …     an outline, or the four corners of a turned box: the box around it
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcodp.data.parsing import CLIPPED, OUTSIDE, Box, LeftOut, Problem, fit_box, gather

Object = tuple[Box, int]  # box in pixels, class index
Row = tuple[float, ...]  # the class, then shares

REPEATED = "rows repeat an object and are left out"
OUTLINE = "rows are outlines or four corners, of which the box around them is taken"
CONFIDENCE = "rows have a sixth number, which is taken for a confidence and left out"
_FEW = 3  # rows from which on a pattern in them is none of chance


@dataclass(frozen=True)
class RowFormat:
    """What the rows of a data set mean."""

    classes: frozenset[int]  # known class numbers
    keypoints: tuple[int, int] = (0, 0)  # kpt_shape: how many, and numbers of each (2, or 3 with visibility)

    @property
    def pose(self) -> int:
        """Numbers after the class in a row with keypoints; 0 where there are none."""
        number, each = self.keypoints
        return 4 + number * each if number else 0


def read_rows(file: Path, width: int, height: int, form: RowFormat) -> tuple[list[Object], list[Problem]]:
    """The objects of a label file, for an image of this size in pixels; a missing file has none."""
    try:
        lines = read_lines(file)
    except FileNotFoundError:
        return [], []
    except (OSError, UnicodeDecodeError) as error:
        return [], [Problem(file, f"cannot be read as text ({error})")]
    entries = [(f"line {number}", line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    read = functools.partial(_object, size=(width, height), form=form, seen=set())
    return gather(file, entries, read)


def read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").splitlines()


def _object(words: list[str], size: tuple[int, int], form: RowFormat, seen: set[Row]) -> tuple[Object, dict[str, str]]:
    """Adds the row to those `seen` in this file; the words say what of it is not taken."""
    label, *shares = _numbers(words, form)
    corners, kind = _corners(shares, form)
    row = (label, *shares) if kind == OUTLINE else (label, *shares[:4])  # as ultralytics tells objects apart
    if row in seen:
        raise LeftOut("repeats an object", REPEATED)
    seen.add(row)
    (width, height), (x, y, X, Y) = size, corners
    box, reaches_out = fit_box((x * width, y * height, X * width, Y * height), width, height)
    return (box, int(label)), {CLIPPED: reaches_out, kind: kind and f"has {len(shares)} numbers after the class"}


def _numbers(words: list[str], form: RowFormat) -> list[float]:
    try:
        label, *shares = map(float, words)
    except ValueError:
        raise ValueError("is no row of numbers") from None
    if label not in form.classes:
        raise ValueError(f"is of unknown class {label:g}; known are {_ranges(form.classes)}")
    return [label, *shares]


def _corners(shares: list[float], form: RowFormat) -> tuple[Box, str]:
    """xmin, ymin, xmax, ymax as shares, and the kind of row where it is more than what data.yaml tells of."""
    if len(shares) == 4:
        return _of_box(shares), ""
    if form.pose and len(shares) == form.pose:
        return _of_box(shares[:4]), ""  # as data.yaml says
    if len(shares) == 5:
        if not 0 <= shares[4] <= 1:
            raise ValueError(f"has a sixth number, {shares[4]:g}, that is no confidence (0 to 1)")
        return _of_box(shares[:4]), CONFIDENCE
    if form.pose:
        raise ValueError(f"has {len(shares)} numbers after the class; a box has 4, with kpt_shape {form.pose}")
    if len(shares) < 6 or len(shares) % 2:
        raise ValueError(f"has {len(shares)} numbers after the class; a box has 4, an outline 6, 8, 10 …; {_POSES}")
    return _of_outline(shares), OUTLINE


_POSES = "rows with keypoints need kpt_shape in data.yaml"


def _of_box(shares: Sequence[float]) -> Box:
    x, y, w, h = shares
    _check(shares)
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _of_outline(shares: list[float]) -> Box:
    x, y, X, Y = min(shares[0::2]), min(shares[1::2]), max(shares[0::2]), max(shares[1::2])
    _check(((x + X) / 2, (y + Y) / 2, X - x, Y - y))
    return x, y, X, Y


def _check(box: Sequence[float]) -> None:
    """Centre and size must be shares; ultralytics grants 1 % to them (and clips what reaches out of the image)."""
    if not all(-OUTSIDE <= share <= 1 + OUTSIDE for share in box) or min(box[2:]) < 0:
        raise ValueError("has a coordinate that is no share of the image's width or height (0 to 1)")


def _ranges(numbers: Iterable[int]) -> str:
    """ "0 to 3", or "0, 2, 5" where numbers are missing."""
    found = sorted(numbers)
    whole = found == list(range(found[0], found[-1] + 1)) and len(found) > 1
    return f"{found[0]} to {found[-1]}" if whole else ", ".join(map(str, found))


def looks_like_poses(rows: Sequence[Sequence[float]]) -> bool:
    """True where rows of numbers after the class must be boxes with keypoints, though nothing says so.

    All are equally long, and in nine of ten the first four make a box in the image around the points after them, while
    the row is no parallelogram, as the corners of a turned box are. Outlines are of many lengths.
    """
    alike = len(rows) >= _FEW and len(set(map(len, rows))) == 1
    return alike and sum(map(_is_pose, rows)) >= 0.9 * len(rows)


def _is_pose(row: Sequence[float]) -> bool:
    x, y, w, h = row[:4]
    inside = min(w, h) > 0 and all(
        side / 2 - OUTSIDE <= middle <= 1 + OUTSIDE - side / 2 for middle, side in ((x, w), (y, h))
    )
    return inside and not _is_parallelogram(row) and any(_hold_points(row, each) for each in (2, 3))


def _hold_points(row: Sequence[float], each: int) -> bool:
    """Keypoints of `each` numbers lie in the box or close to it; those at 0, 0 are not marked; a third is 0, 1 or 2."""
    x, y, w, h = row[:4]
    points = [row[k : k + each] for k in range(4, len(row), each)]
    if len(points[-1]) != each or (each == 3 and any(point[2] not in (0, 1, 2) for point in points)):
        return False
    marked = [point for point in points if point[0] or point[1]]
    return all(abs(p[0] - x) <= 0.6 * w and abs(p[1] - y) <= 0.6 * h for p in marked)


def _is_parallelogram(row: Sequence[float]) -> bool:
    return len(row) == 8 and all(abs(row[k] + row[k + 4] - row[k + 2] - row[k + 6]) < 0.02 for k in (0, 1))
