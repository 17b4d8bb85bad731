"""What the numbers in an image file mean: depth and modes, against cv2 and ultralytics."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from dcodp.data.images import image_size, probe, read_image
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError

RAMP = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (8, 1))
SHADES = np.tile(np.arange(256, dtype=np.uint8), (8, 1))  # RAMP in 8 bits


def ultralytics_imread(path):
    """RGB, as ultralytics reads it."""
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.utils.patches import imread

    return imread(str(path))[..., ::-1]


def labelled(path, width, height):
    nothing, flags = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    return LabelledImage("x", path, width, height, nothing, np.zeros(0, np.int64), flags, flags)


def write_tiff(path, samples: bytes, bits: int, width=256, height=8, sample_format=1, photometric=1):
    """A TIFF of one strip of grey samples, by hand: writers offer no such depths."""
    short, long = 3, 4
    tags = [(256, short, width), (257, short, height), (258, short, bits), (259, short, 1), (262, short, photometric),
            (273, long, 8), (277, short, 1), (278, short, height), (279, long, len(samples)),
            (339, short, sample_format)]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1)
        + (struct.pack("<HH", value, 0) if kind == short else struct.pack("<I", value))
        for tag, kind, value in tags
    )
    samples += b"\0" * (len(samples) % 2)
    head = b"II*\0" + struct.pack("<I", 8 + len(samples))
    path.write_bytes(head + samples + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0")


# --- depth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_of_grey_keep_the_upper_eight(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), RAMP)
    pixels = read_image(tmp_path / name, (256, 8))
    assert np.array_equal(pixels, np.repeat(SHADES[..., None], 3, 2)) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, ultralytics_imread(tmp_path / name))
    assert probe(labelled(tmp_path / name, 256, 8)) is None


@pytest.mark.parametrize("name", ["a.png", "a.tif", "alpha.png"])
def test_sixteen_bits_of_colour(tmp_path, name):
    bands = [RAMP, RAMP // 2, RAMP // 4, *([RAMP] if name == "alpha.png" else [])]
    cv2.imwrite(str(tmp_path / name), np.dstack(bands))
    pixels = read_image(tmp_path / name)
    assert np.abs(pixels.astype(int) - ultralytics_imread(tmp_path / name)).max() <= 1
    assert np.array_equal(pixels[..., 2], SHADES)


def test_a_tiff_says_its_own_depth(tmp_path):
    twelve = (RAMP >> 4).reshape(-1, 2)  # two samples in three bytes
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in twelve.tolist())
    write_tiff(tmp_path / "a.tif", packed, 12)
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], SHADES)


def test_white_may_be_zero(tmp_path):
    write_tiff(tmp_path / "a.tif", RAMP.tobytes(), 16, photometric=0)
    pixels = read_image(tmp_path / "a.tif")
    assert np.array_equal(pixels[..., 0], 255 - SHADES)
    assert np.array_equal(pixels, ultralytics_imread(tmp_path / "a.tif"))


@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("overshoot", [0, 0.05])
def test_floats_from_black_to_white(tmp_path, white, overshoot):
    values = np.linspace(0 - overshoot, 1 + overshoot, 256) * white
    Image.fromarray(np.tile(values.astype(np.float32), (8, 1))).save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif")
    expected = (np.linspace(-overshoot, 1 + overshoot, 256) * 255).clip(0, 255)
    assert np.abs(pixels - expected[None, :, None]).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (RAMP.astype(np.float32), "floats from 0 to 65535: store them from 0 to 1"),
        (SHADES.astype(np.float32) - 128, "floats from -128 to 127"),
        (np.full((8, 8), np.nan, np.float32), "floats from nan to nan"),
        (RAMP.astype(np.int32), "whole numbers of 32 bits"),
    ],
)
def test_numbers_that_are_no_picture_are_refused(tmp_path, values, what):
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert f"{path} is not a readable image ({what}" in str(error.value) and "\n" not in str(error.value)
    assert what in probe(labelled(path, values.shape[1], values.shape[0])).what


def test_negative_whole_numbers_are_refused(tmp_path):
    write_tiff(tmp_path / "a.tif", (RAMP.astype(np.int64) - 32768).astype("<i2").tobytes(), 16, sample_format=2)
    with pytest.raises(InputError, match="pixels from -32768 to 32767"):
        read_image(tmp_path / "a.tif")


def test_formats_that_pil_lacks_are_refused_in_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.float32))
    with pytest.raises(InputError, match="is not a readable image") as error:
        read_image(path)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(Image, "open", lambda path: __import__("no_such_heif_reader"))  # as ultralytics' own `open`
    with pytest.raises(InputError, match="is not a readable image"):
        read_image(path)
    assert probe(labelled(path, 8, 8))
    with pytest.raises(ValueError, match="is not a readable image"):
        image_size(path)


# --- modes ------------------------------------------------------------------------------------------------------------


def picture(mode):
    colours = np.dstack([SHADES, 255 - SHADES, SHADES // 2])
    if mode == "P":
        return Image.fromarray(colours).quantize(16)
    if mode in ("RGBA", "CMYK"):
        return Image.fromarray(np.dstack([colours, SHADES // 4]), mode)
    return Image.fromarray(np.dstack([SHADES, 255 - SHADES]), "LA") if mode == "LA" else Image.fromarray(SHADES)


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [
        ("L", "a.png", 0),
        ("L", "a.jpg", 1),
        ("LA", "a.png", 0),
        ("P", "a.png", 0),
        ("RGBA", "a.png", 0),
        ("RGBA", "a.webp", 0),
        ("CMYK", "a.jpg", 2),
        ("CMYK", "a.tif", 2),
    ],
)
def test_modes_are_read_as_ultralytics_reads_them(tmp_path, mode, name, tolerance):
    how = {"webp": {"lossless": True, "exact": True}, "jpg": {"quality": 100}}.get(name[2:], {})
    picture(mode).save(tmp_path / name, **how)
    difference = np.abs(read_image(tmp_path / name).astype(int) - ultralytics_imread(tmp_path / name))
    assert difference.max() <= tolerance


def test_a_palette_may_have_a_transparent_colour(tmp_path):
    picture("P").save(tmp_path / "a.png", transparency=3)
    assert np.array_equal(read_image(tmp_path / "a.png"), ultralytics_imread(tmp_path / "a.png"))
