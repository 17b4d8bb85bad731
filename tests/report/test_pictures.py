"""Detections drawn before and after."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError
from dcodp.pipeline.measuring import draw
from dcodp.report.pictures import CELL, GAP, TITLE, Drawn, draw_pictures

NOTHING = Drawn(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))


@pytest.fixture
def images(tmp_path) -> list[Path]:
    paths = [tmp_path / "wide.png", tmp_path / "tall.png"]
    for path, size in zip(paths, ((200, 100), (50, 100)), strict=True):
        Image.new("RGB", size, "black").save(path)
    return paths


def drawn(*boxes, score=0.9):
    return Drawn(np.array(boxes, float), np.full(len(boxes), score), np.zeros(len(boxes), int))


def test_boxes_lie_where_they_belong(images, tmp_path):
    found = {"dense": [drawn((100, 20, 150, 80)), NOTHING], "pruned": [drawn((0, 0, 9, 9), score=0.1), NOTHING]}
    path = draw_pictures(tmp_path / "out" / "p.png", images, found, ["cat"])
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (TITLE + CELL // 2 + CELL + 2 * GAP, 2 * (CELL + GAP) + GAP, 3)
    scale = CELL / 200  # 2: the wide image, first row, first column
    y, x = TITLE + int(80 * scale), GAP + int(125 * scale)
    assert tuple(pixels[y, x]) == (0xE6, 0x9F, 0x00)  # lower edge in the class's colour
    assert tuple(pixels[y - 20, x]) == (0, 0, 0)  # inside
    second = pixels[TITLE : TITLE + CELL // 2, 2 * GAP + CELL : 2 * GAP + 2 * CELL]
    assert not (second == (0xE6, 0x9F, 0x00)).all(axis=-1).any()  # below the confidence: not drawn


def test_boxes_beyond_the_edge_are_clipped(images, tmp_path):
    boxes = drawn((-50, -50, 500, 500), (300, 300, 400, 400))
    draw_pictures(tmp_path / "p.png", images[:1], {"dense": [boxes]}, ["cat"])


def test_wrong_lists_are_refused(images, tmp_path):
    with pytest.raises(InputError, match="one entry per image"):
        draw_pictures(tmp_path / "p.png", images, {"dense": [NOTHING]}, ["cat"])


def test_every_stage_has_a_column_also_where_its_net_has_not_looked(images, tmp_path):
    found = {"dense": [NOTHING, NOTHING], "melted": None, "finetuned": None}
    with Image.open(draw_pictures(tmp_path / "p.png", images, found, ["cat"])) as image:
        assert image.width == 3 * (CELL + GAP) + GAP


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((100, 200), (10, 120, 60, 180)),  # annotated as it is seen: turned
        ((200, 100), (120, 10, 180, 60)),  # annotated as it is stored
    ],
)
def test_pictures_lie_as_the_nets_saw_them(tmp_path, size, box):
    """16 bits, to be turned by a quarter: what is drawn is what `read_image` gives for the annotation's size."""
    stored, exif = tmp_path / "deep.png", Image.Exif()
    exif[274] = 6
    Image.fromarray(np.full((100, 200), 40_000, np.uint16)).save(stored, exif=exif)
    none = np.zeros(0, bool)
    image = LabelledImage("1", stored, *size, np.zeros((0, 4), np.float32), np.zeros(0, int), none, none)
    cell = SimpleNamespace(
        test_set=DetectionSet("deep", "val", ("cat",), (image,)),
        config=SimpleNamespace(evaluation=SimpleNamespace(pictures=1)),
        folder=SimpleNamespace(pictures=tmp_path / "p.png"),
    )
    found = drawn(box)
    draw(cell, {"dense": {"1": (found.boxes, found.scores, found.labels)}})
    with Image.open(tmp_path / "p.png") as grid:
        pixels = np.asarray(grid.convert("RGB"))[TITLE:, GAP:]
    scale = CELL / 200
    height, width = (int(side * scale) for side in size[::-1])
    assert pixels.shape == (height + GAP, width + GAP, 3)
    assert (pixels[height - 2, 2] == 40_000 >> 8).all()  # the picture reaches its corner
    x, y = int((box[0] + box[2]) / 2 * scale), int(box[3] * scale)
    assert tuple(pixels[y, x]) == (0xE6, 0x9F, 0x00)


def test_bad_files_and_arrays_are_refused(images, tmp_path):
    images[0].write_text("no image")
    with pytest.raises(InputError, match=r"wide\.png is not a readable image"):
        draw_pictures(tmp_path / "p.png", images, {}, ["cat"])
    with pytest.raises(InputError, match="do not belong together"):
        Drawn(np.zeros((2, 4)), np.zeros(1), np.zeros(2, int))
    with pytest.raises(InputError, match=r"evaluation\.pictures"):
        draw_pictures(tmp_path / "p.png", [], {}, ["cat"])
