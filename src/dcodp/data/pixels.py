"""What the numbers in an image file mean: which way up the picture is, and what is white.

Pixels come out as cv2 and ultralytics read them: EXIF's orientation is applied (of XMP's nobody takes notice), alpha is
dropped, and of 16 bits the upper 8 are kept. What they cannot read at all is read where the format says what white is,
and refused elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

# What PIL raises on files that are no images, end too early or are damaged (SyntaxError is its word for a broken PNG,
# ImportError what ultralytics' replacement of Image.open raises instead of saying that it does not know a format).
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError, ImportError)
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 274, 258, 262  # EXIF's and TIFF's numbers of these tags
_WHITE_IS_ZERO = 0

# EXIF orientation → the picture [H, W, 3] as it is to be seen, from the stored one (Exif 2.32, 4.6.4.A: where the
# stored rows and columns begin).
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # mirrored left to right
    3: lambda a: a[::-1, ::-1],  # half a turn
    4: lambda a: a[::-1],  # mirrored top to bottom
    5: lambda a: a.swapaxes(0, 1),  # mirrored at the main diagonal
    6: lambda a: np.rot90(a, -1),  # to be turned by a quarter clockwise
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),  # mirrored at the other diagonal
    8: lambda a: np.rot90(a),  # by a quarter counter-clockwise
}


def orientation(stored: Image.Image) -> int:
    """EXIF's 1 … 8; 1 where there is none, where it cannot be read, and for TIFF, which PIL turns by itself.

    May decode the picture: of a PNG the tag can follow the pixels (as exiftool writes it), and cv2 heeds it there too.
    """
    if stored.format == "TIFF":
        return 1
    if stored.format == "PNG" and "exif" not in stored.info:
        stored.load()
    exif = Image.Exif()
    try:
        exif.load(stored.info.get("exif", b""))
        found = exif.get(ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def seen_size(stored: Image.Image) -> tuple[int, int]:
    """Width and height of the picture as it is to be seen; 5 to 8 are quarter turns."""
    width, height = stored.size
    return (height, width) if orientation(stored) >= 5 else (width, height)


def seen(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, 3] → as they are to be seen, [H, W, 3] or [W, H, 3]; a contiguous array."""
    return np.ascontiguousarray(_TURNS[orientation](pixels))


def rgb(stored: Image.Image) -> np.ndarray:
    """The stored pixels as RGB [H, W, 3] uint8. ValueError where nothing says what white is.

    Grey of more than 8 bits: the upper 8 (as ultralytics; of a TIFF's own depth, 12 bits say). Floats: 0 to 1, or to
    255 where one exceeds 2.
    """
    if stored.mode == "F":
        return _as_rgb(_of_floats(np.asarray(stored)))
    if stored.mode.startswith("I"):
        return _as_rgb(_of_integers(stored))
    return np.array(stored.convert("RGB"))


def is_deep(stored: Image.Image) -> bool:
    """True for grey of more than 8 bits, where the pixels decide whether it can be read."""
    return stored.mode == "F" or stored.mode.startswith("I")


def _as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _of_integers(stored: Image.Image) -> np.ndarray:
    """[H, W] in 0 … 255. Without a depth of the file's own it is 16 bits: PIL scales PNG and PGM to these."""
    tags = getattr(stored, "tag_v2", {})
    bits = int(tags.get(BITS_PER_SAMPLE, (16,))[0])
    if bits > 16:
        raise ValueError(f"whole numbers of {bits} bits, and nothing says what white is: store 8 or 16 bits")
    grey = np.asarray(stored).astype(np.int32)
    if grey.min() < 0:
        raise ValueError(f"pixels from {grey.min()} to {grey.max()}: store whole numbers from 0 on in 8 or 16 bits")
    if tags.get(PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 2**bits - 1 - grey
    return grey >> (bits - 8)


def _of_floats(values: np.ndarray) -> np.ndarray:
    """[H, W] in 0 … 255; a tenth beyond black and white is taken for the overshoot of scaling, and cut."""
    low, high = float(values.min()), float(values.max())
    white = 1.0 if high <= 2 else 255.0
    if not (np.isfinite(values).all() and low >= -0.1 * white and high <= 1.1 * white):
        raise ValueError(f"floats from {low:g} to {high:g}: store them from 0 to 1, or as 8 or 16 bits")
    return np.rint(values.clip(0, white) * (255.0 / white))
