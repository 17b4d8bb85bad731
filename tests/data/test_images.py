"""Decoding, the letterbox and batches."""

import logging

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dcodp.config import DatasetConfig
from dcodp.data.images import (
    GREY,
    calibration_images,
    evaluation_batches,
    letterbox,
    map_ahead,
    probe,
    read_image,
)
from dcodp.data.splits import load
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError


def labelled(path, width, height, name="x"):
    nothing = np.zeros((0, 4), np.float32)
    flags = np.zeros(0, bool)
    return LabelledImage(name, path, width, height, nothing, np.zeros(0, np.int64), flags, flags)


@pytest.fixture
def small_set(tmp_path, write_image):
    images = []
    for k in range(5):
        path = tmp_path / f"{k}.jpg"
        write_image(path, k, 40 + 3 * k, 30)
        images.append(labelled(path, 40 + 3 * k, 30, str(k)))
    return DetectionSet("made-up", "val", ("thing",), tuple(images))


def test_pixels_are_rgb(tmp_path):
    Image.new("RGB", (4, 2), (200, 100, 50)).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", (4, 2))
    assert pixels.shape == (2, 4, 3) and pixels.dtype == np.uint8 and pixels[0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 2)).save(path)
    assert read_image(path).shape == (2, 4, 3)


def test_agrees_with_cv2(tmp_path, write_image):
    """Published figures were measured on images that cv2 decoded."""
    write_image(tmp_path / "a.jpg", 3, 64, 48)
    expected = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - expected).max() <= 1


def broken_files(folder, write_image):
    write_image(folder / "truncated.jpg")
    content = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(content[:-200])
    (folder / "header.jpg").write_bytes(content[:300])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not found")
    (folder / "folder.jpg").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "whole.png")
    (folder / "truncated.png").write_bytes((folder / "whole.png").read_bytes()[:-30])
    return [folder / f"{name}.jpg" for name in ("truncated", "header", "empty", "text", "folder", "missing")] + [
        folder / "truncated.png"
    ]


def test_broken_files_are_named(tmp_path, write_image):
    for path in broken_files(tmp_path, write_image):
        with pytest.raises(InputError) as error:
            read_image(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert probe(labelled(path, 40, 30)).file == path


def test_size_must_be_the_annotated_one(tmp_path, write_image):
    write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is 40×30 px, its annotation says 30×40 px"):
        read_image(tmp_path / "a.jpg", (30, 40))
    assert "is 40×30 px" in probe(labelled(tmp_path / "a.jpg", 41, 30)).what
    assert probe(labelled(tmp_path / "a.jpg", 40, 30)) is None


def test_turned_only_where_the_annotation_is(tmp_path):
    """EXIF orientation 6: to be shown turned by a quarter clockwise."""
    picture = Image.new("RGB", (40, 30))
    picture.paste((255, 255, 255), (0, 0, 10, 10))  # stored: white top left; shown: white top right
    exif = Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    stored, shown = read_image(tmp_path / "a.jpg", (40, 30)), read_image(tmp_path / "a.jpg", (30, 40))
    assert stored.shape == (30, 40, 3) and stored[2, 2].min() > 200
    assert shown.shape == (40, 30, 3) and shown[2, -3].min() > 200 and shown[2, 2].max() < 50
    assert np.array_equal(read_image(tmp_path / "a.jpg"), shown)  # without an annotation: as it is seen
    assert probe(labelled(tmp_path / "a.jpg", 30, 40)) is None and probe(labelled(tmp_path / "a.jpg", 31, 40))


@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (33, 47), (64, 64), (1, 100), (100, 3), (480, 641), (720, 1280)])
@pytest.mark.parametrize("size", [64, 160])
def test_letterbox_is_that_of_the_published_figures(shape, size):
    """The same pixels as ultralytics' validation: the image resized on loading, then padded."""
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    ratio = size / max(shape)
    h, w = (min(int(np.ceil(side * ratio)), size) for side in shape)
    resized = image if ratio == 1 else cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    expected = LetterBox((size, size), scaleup=False)(image=resized)
    square, _ = letterbox(image, size)
    np.testing.assert_array_equal(square, expected)


def test_letterbox_places_and_pads():
    square, place = letterbox(np.full((30, 61, 3), 7, np.uint8), 64)
    assert square.shape == (64, 64, 3) and (place.width, place.height) == (61, 30)
    rows = np.flatnonzero((square == 7).all((1, 2)))
    assert place.pad_y == rows[0] and place.pad_x == 0
    assert len(rows) == 32 == round(place.scale_y * 30)  # 31.5 rounded up
    assert (square[: rows[0]] == GREY).all() and (square[rows[-1] + 1 :] == GREY).all()
    assert place.scale == pytest.approx(64 / 61)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_boxes_return_to_the_image(kind):
    _, place = letterbox(np.zeros((33, 47, 3), np.uint8), 64)
    boxes = kind(np.float32([[0, 0, 47, 33], [1.5, 2, 30, 20]]))
    there = place.to_square(boxes)
    back = place.to_image(there)
    assert type(back) is type(boxes) and back.dtype == boxes.dtype
    np.testing.assert_allclose(np.asarray(back), np.asarray(boxes), atol=1e-4)
    np.testing.assert_allclose(np.asarray(there)[0], [0, place.pad_y, 64, place.pad_y + np.ceil(33 * 64 / 47)])
    everything = place.to_image(kind(np.float32([[-9, -9, 99, 99]])))
    assert np.asarray(everything).tolist() == [[0, 0, 47, 33]]
    assert place.to_image(boxes[:0]).shape == (0, 4)


def test_evaluation_batches_hold_every_image_in_order(small_set):
    batches = list(evaluation_batches(small_set, 64, 2))
    assert [len(images) for images, _, _ in batches] == [2, 2, 1]
    assert [image.id for _, images, _ in batches for image in images] == list("01234")
    for squares, images, places in batches:
        assert squares.dtype == torch.uint8 and squares.shape == (len(images), 3, 64, 64) and squares.is_contiguous()
        for square, image, place in zip(squares, images, places, strict=True):
            expected, same = letterbox(read_image(image.path), 64)
            assert torch.equal(square, torch.from_numpy(expected).permute(2, 0, 1)) and place == same


def test_broken_image_ends_the_evaluation(small_set, truncate):
    truncate(small_set.images[3].path)
    batches = evaluation_batches(small_set, 64, 2)
    next(batches)
    with pytest.raises(InputError, match=r"3\.jpg is not a readable image"):
        next(batches)


def test_calibration_draws_without_replacement(small_set):
    def drawn(n, seed):
        return torch.cat(list(calibration_images(small_set, n, 64, 2, seed)))

    everything = torch.cat([squares for squares, _, _ in evaluation_batches(small_set, 64, 5)])
    which = [[int((square == other).all()) for other in everything].index(1) for square in drawn(4, 0)]
    assert len(set(which)) == 4
    assert torch.equal(drawn(4, 0), drawn(4, 0)) and torch.equal(drawn(4, 0)[:2], drawn(2, 0))
    assert any(not torch.equal(drawn(4, 0), drawn(4, seed)) for seed in (1, 2))


def test_calibration_with_too_few_images_says_so(small_set, caplog):
    with caplog.at_level(logging.WARNING):
        batches = list(calibration_images(small_set, 9, 64, 3, 0))
    assert [len(batch) for batch in batches] == [3, 2] and "has 5 images only" in caplog.text


def test_map_ahead_keeps_order_and_distance():
    taken = []
    results = map_ahead(lambda k: k * k, (taken.append(k) or k for k in range(20)), ahead=3)
    assert next(results) == 0 and len(taken) == 4
    assert list(results) == [k * k for k in range(1, 20)]


def test_map_ahead_may_be_left_early():
    results = map_ahead(lambda k: k, iter(int, 1), ahead=2)  # endless
    assert next(results) == 0
    results.close()


@pytest.mark.realdata
def test_real_boxes_lie_in_the_square(realdata):
    config = DatasetConfig("voc2007", "voc", "train", "val", val_limit=8)
    for squares, images, places in evaluation_batches(load(config, realdata, "val"), 96, 4):
        for square, image, place in zip(squares, images, places, strict=True):
            boxes = place.to_square(image.boxes)
            assert boxes.min() >= 0 and boxes.max() <= 96 and square.float().std() > 5
