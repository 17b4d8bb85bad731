"""All eight EXIF orientations: pixels as cv2 and ultralytics read them, and boxes on them."""

import json
import logging
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from dcodp.config import DatasetConfig
from dcodp.data.checking import check
from dcodp.data.images import image_size, probe, read_image
from dcodp.data.splits import load
from dcodp.data.types import LabelledImage


def ultralytics_imread(path):
    """RGB, as ultralytics reads it."""
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.utils.patches import imread

    return imread(str(path))[..., ::-1]


def labelled(path, width, height):
    nothing, flags = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    return LabelledImage("x", path, width, height, nothing, np.zeros(0, np.int64), flags, flags)


ALL = range(1, 9)
BRIGHT = (2, 3, 34, 15)  # xmin, ymin, xmax, ymax of the bright area in the stored picture


def save_turned(path, orientation, width=96, height=64, late=False):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[BRIGHT[1] : BRIGHT[3], BRIGHT[0] : BRIGHT[2]] = 255
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 100} if path.suffix in (".jpg", ".webp") else {}))
    if late:
        _move_tag_to_the_end(path)


def _move_tag_to_the_end(png):
    """eXIf behind the pixels, where exiftool puts it."""
    content, chunks, at = png.read_bytes(), [], 8
    while at < len(content):
        end = at + 12 + struct.unpack(">I", content[at : at + 4])[0]
        chunks.append(content[at:end])
        at = end
    tags = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    others = [chunk for chunk in chunks if chunk[4:8] != b"eXIf"]
    assert tags
    png.write_bytes(content[:8] + b"".join([*others[:-1], *tags, others[-1]]))


def bright_box(pixels):
    """xmin, ymin, xmax, ymax of what is bright."""
    rows, columns = np.nonzero(pixels[..., 0] > 128)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "mpo"])
def test_every_orientation_is_applied_as_ultralytics_does(tmp_path, orientation, suffix):
    for width, height in ((96, 64), (64, 64)):
        path = tmp_path / f"{width}.{suffix}"
        save_turned(path, orientation, width, height)
        size = image_size(path)
        pixels = read_image(path, size)
        assert size == pixels.shape[1::-1] == ((height, width) if orientation > 4 else (width, height))
        theirs = ultralytics_imread(path)
        assert pixels.shape == theirs.shape and np.abs(pixels.astype(int) - theirs).mean() < 2
        assert probe(labelled(path, *size)) is None


@pytest.mark.parametrize("orientation", ALL)
def test_a_png_may_say_it_behind_its_pixels(tmp_path, orientation):
    save_turned(tmp_path / "a.png", orientation, late=True)
    size = image_size(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", size), cv2.imread(str(tmp_path / "a.png"))[..., ::-1])


def test_what_xmp_says_is_not_heeded(tmp_path):
    """cv2, ultralytics and browsers look at EXIF alone."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:20, :30] = 255
    says = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, xmp=says)
    assert Image.open(tmp_path / "a.jpg").getexif().get(274) == 6  # PIL by itself would turn it
    assert image_size(tmp_path / "a.jpg") == (96, 64)
    theirs = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    assert np.abs(read_image(tmp_path / "a.jpg", (96, 64)).astype(int) - theirs).mean() < 2


@pytest.mark.parametrize("tag", [0, 9, 65535])
def test_an_orientation_that_is_none(tmp_path, tag):
    save_turned(tmp_path / "a.jpg", tag)
    assert image_size(tmp_path / "a.jpg") == (96, 64) and bright_box(read_image(tmp_path / "a.jpg"))[0] == BRIGHT[0]


def test_a_damaged_tag_leaves_the_picture_readable(tmp_path):
    save_turned(tmp_path / "a.jpg", 6)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(
        content.replace(b"Exif\0\0MM\0*", b"Exif\0\0xx\0*").replace(b"Exif\0\0II*\0", b"Exif\0\0xx*\0")
    )
    assert (tmp_path / "a.jpg").read_bytes() != content and image_size(tmp_path / "a.jpg") == (96, 64)
    assert read_image(tmp_path / "a.jpg").shape == (64, 96, 3)


def custom(root):
    return DatasetConfig("custom", "custom", file=str(root / "data.yaml"))


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("shape", [(96, 64), (64, 64)])
def test_yolo_boxes_lie_on_the_seen_picture(tmp_path, orientation, shape):
    """A label as a tool writes it that shows the picture upright."""
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    path = tmp_path / "images/a.jpg"
    save_turned(path, orientation, *shape)
    x, y, X, Y = bright_box(ultralytics_imread(path))
    width, height = shape[::-1] if orientation > 4 else shape
    row = [0, (x + X) / 2 / width, (y + Y) / 2 / height, (X - x) / width, (Y - y) / height]
    (tmp_path / "labels/a.txt").write_text(" ".join(map(str, row)))
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [bright]\n")
    (image,) = load(custom(tmp_path), tmp_path, "train").images
    pixels = read_image(image.path, (image.width, image.height))
    np.testing.assert_allclose(image.boxes, [bright_box(pixels)], atol=1e-3)
    assert check(custom(tmp_path), tmp_path).problems == ()


def coco_image(root, path, box, size):
    """The only image of a COCO set, as loaded."""
    x, y, X, Y = map(int, box)
    images = [{"id": 1, "file_name": path.name, "width": size[0], "height": size[1]}]
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, X - x, Y - y]}]
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bright"}]}
    (root / "a.json").write_text(json.dumps(tree))
    config = DatasetConfig("mine", "custom", str(root / "a.json"), str(root / "a.json"))
    assert check(config, root).problems == ()
    return load(config, root, "train").images[0]


@pytest.mark.parametrize("orientation", ALL)
def test_coco_boxes_of_the_seen_picture(tmp_path, orientation):
    """Width, height and boxes as tools write them that show the picture upright."""
    path = tmp_path / "a.jpg"
    save_turned(path, orientation)
    seen = ultralytics_imread(path)
    image = coco_image(tmp_path, path, bright_box(seen), seen.shape[1::-1])
    assert bright_box(read_image(path, (image.width, image.height))) == image.boxes[0].tolist()


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_coco_boxes_of_the_stored_picture(tmp_path, orientation):
    """Where width and height are the stored ones of a picture to be turned, so are the boxes."""
    path = tmp_path / "a.jpg"
    save_turned(path, orientation)
    image = coco_image(tmp_path, path, BRIGHT, (96, 64))
    assert bright_box(read_image(path, (image.width, image.height))) == image.boxes[0].tolist() == list(BRIGHT)


def test_orientation_of_deep_pictures(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png", image_size(tmp_path / "a.png"))
    assert pixels.shape == (256, 8, 3) and np.array_equal(pixels[..., 0], np.tile(np.arange(256), (8, 1)).T)


def test_nothing_is_said_about_good_images(tmp_path, caplog):
    (tmp_path / "images").mkdir(), (tmp_path / "labels").mkdir()
    save_turned(tmp_path / "images/a.jpg", 3)
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [bright]\n")
    with caplog.at_level(logging.WARNING):
        load(custom(tmp_path), tmp_path, "train")
    assert not caplog.records
