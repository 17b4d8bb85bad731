"""What the readers share: a split as a stream of images and problems, and the check of a box against its image.

Readers never stop at a broken item: they say what is wrong with it and go on. Whether that ends the run
(`load`), leaves the image out (`load` with dataset.broken=skip) or is listed (`check`) is decided by the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcodp.data.types import LabelledImage

# Annotation tools count the first pixel as 0 or 1 and round at the far edge; more than that is another mistake
# (x, y, X, Y where a width is expected, a box of another image).
TOLERANCE_PX = 1.0


@dataclass(frozen=True)
class Problem:
    """Something wrong in one file. Where it is not fatal a box was left out and its image stays."""

    file: Path
    what: str  # continues a sentence that begins with the file: "is missing"
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


@dataclass(frozen=True)
class Listing:
    """One split as its files list it; `items` are read as they are asked for, in the listed order."""

    classes: tuple[str, ...]
    size: int  # images listed
    items: Iterator[LabelledImage | Problem]  # every listed image gives itself or at least one fatal problem
    category_ids: tuple[int, ...] = ()


def fit_box(box: tuple[float, float, float, float], width: int, height: int) -> tuple[float, float, float, float]:
    """The box (xmin, ymin, xmax, ymax in pixels) clipped to its image.

    Raises ValueError where a number is not finite, where the box reaches out of the image by more than
    TOLERANCE_PX, and where nothing of it is left.
    """
    if not np.isfinite(box).all():
        raise ValueError("has a box with a number that is not finite")
    xmin, ymin, xmax, ymax = box
    if min(xmin, ymin) < -TOLERANCE_PX or xmax > width + TOLERANCE_PX or ymax > height + TOLERANCE_PX:
        raise ValueError(f"has a box outside its {width}×{height} px image: {_shown(box)}")
    xmin, ymin, xmax, ymax = max(xmin, 0.0), max(ymin, 0.0), min(xmax, float(width)), min(ymax, float(height))
    if xmax <= xmin or ymax <= ymin:
        raise ValueError(f"has a box of zero size: {_shown(box)}")
    return xmin, ymin, xmax, ymax


def _shown(box: tuple[float, ...]) -> str:
    return "xmin {:g}, ymin {:g}, xmax {:g}, ymax {:g} (counted from 0)".format(*box)


def names(paths: Iterable[Path]) -> str:
    """File names without endings, for error messages that say what there is instead."""
    return ", ".join(sorted(path.stem for path in paths)) or "none"
