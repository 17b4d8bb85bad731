"""The same validation images under the dense, the pruned and the fine-tuned net, side by side, as one PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dcodp.errors import InputError
from dcodp.files import write_atomically
from dcodp.report.labels import label

CELL, GAP, TITLE = 400, 8, 28  # pixels: longest side of one picture, space between, height of the column titles
# Okabe and Ito's colours; a class keeps its colour over all pictures, and its name stands beside it
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


@dataclass(frozen=True)
class Drawn:
    """What one net found in one image, in pixels of the image as `read_image` gives it."""

    boxes: np.ndarray  # [n, 4] float, xmin, ymin, xmax, ymax
    scores: np.ndarray  # [n] float, 0 to 1
    labels: np.ndarray  # [n] int, class indices

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self.scores), 4) or len(self.scores) != len(self.labels):
            shapes = f"boxes {self.boxes.shape}, scores {self.scores.shape}, labels {self.labels.shape}"
            raise InputError(f"{shapes} do not belong together; give [n, 4], [n] and [n]")


def draw_pictures(
    path: Path,
    images: Sequence[Path],
    found: Mapping[str, Sequence[Drawn] | None],
    classes: Sequence[str],
    confidence: float = 0.25,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Path:
    """Writes a grid to `path`: one row per image, one column per stage, boxes of at least `confidence`.

    `found`: stage → one `Drawn` per image, in the order of the columns; a stage that is None is shown as missing.
    `sizes`: width and height of every image in its annotation, where the nets were given the image read for that size.
    Raises InputError for an image that cannot be read and for lists of unequal length.
    """
    from dcodp.data.images import read_image  # it needs torch, which reports do without

    for stage, nets in found.items():
        if nets is not None and len(nets) != len(images):
            raise InputError(f"{stage}: give one entry per image ({len(images)}), not {len(nets)}")
    if not images:
        raise InputError("no images to draw; set evaluation.pictures to 1 or more")
    given = sizes or [None] * len(images)
    pictures = (Image.fromarray(read_image(image, size)) for image, size in zip(images, given, strict=True))
    rows = [_row(i, picture, found, classes, confidence) for i, picture in enumerate(pictures)]
    stream = io.BytesIO()
    _stack(rows, list(found)).save(stream, format="PNG")
    write_atomically(path, stream.getvalue())
    return path


def _row(
    i: int, picture: Image.Image, found: Mapping[str, Sequence[Drawn] | None], classes: Sequence[str], confidence: float
) -> list[Image.Image]:
    scale = CELL / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.resize(size, Image.Resampling.LANCZOS)
    nets = list(found.values())
    return [_cell(small, scale, None if net is None else net[i], classes, confidence) for net in nets]


def _cell(
    picture: Image.Image, scale: float, drawn: Drawn | None, classes: Sequence[str], confidence: float
) -> Image.Image:
    """A copy of the picture with boxes, "CLASS 0.87" at each; or what is to be said where there are none."""
    cell = picture.copy()
    draw = ImageDraw.Draw(cell)
    if drawn is None:
        _tag(draw, (4, 4), "missing", "#FFFFFF", cell.size)
        return cell
    kept = [i for i in np.argsort(drawn.scores, kind="stable") if drawn.scores[i] >= confidence]
    if not kept:
        _tag(draw, (4, 4), f"nothing found above {confidence:g}", "#FFFFFF", cell.size)
    colours = {i: COLOURS[int(drawn.labels[i]) % len(COLOURS)] for i in kept}
    for i in kept:  # the surest last, on top
        draw.rectangle(_inside(drawn.boxes[i] * scale, cell.size), outline=colours[i], width=2)
    for i in kept:
        name = f"{classes[int(drawn.labels[i])]} {drawn.scores[i]:.2f}"
        _tag(draw, (drawn.boxes[i, 0] * scale, drawn.boxes[i, 1] * scale - 14), name, colours[i], cell.size)
    return cell


def _inside(box: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Clipped to the picture; xmin ≤ xmax and ymin ≤ ymax also for boxes that lie outside it."""
    x = [min(max(float(v), 0.0), size[0] - 1) for v in (box[0], box[2])]
    y = [min(max(float(v), 0.0), size[1] - 1) for v in (box[1], box[3])]
    return min(x), min(y), max(x), max(y)


def _tag(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: str, size: tuple[int, int]) -> None:
    """Dark text on the class's colour, moved inside the picture."""
    font = ImageFont.load_default(11)
    width = draw.textlength(text, font=font)
    x = max(0, min(at[0], size[0] - width - 4))
    y = max(0, min(at[1], size[1] - 15))
    draw.rectangle((x, y, x + width + 4, y + 14), fill=colour)
    dark = colour not in ("#0072B2", "#D55E00")
    draw.text((x + 2, y), text, fill="#000000" if dark else "#FFFFFF", font=font)


def _stack(rows: Sequence[Sequence[Image.Image]], stages: Sequence[str]) -> Image.Image:
    """The grid on white under the names of the stages."""
    width = max((cell.width for row in rows for cell in row), default=1)
    heights = [max((cell.height for cell in row), default=1) for row in rows]
    grid = Image.new("RGB", (len(stages) * (width + GAP) + GAP, TITLE + sum(heights) + GAP * len(rows)), "white")
    draw = ImageDraw.Draw(grid)
    for column, stage in enumerate(stages):
        x = GAP + column * (width + GAP)
        draw.text((x, 6), label("stage", stage), fill="black", font=ImageFont.load_default(16))
        for i, row in enumerate(rows):
            grid.paste(row[column], (x, TITLE + sum(heights[:i]) + GAP * i))
    return grid
