"""One generated picture: coloured shapes of eight classes on a textured background.

Size, place, turn, colour, shading and occlusion vary freely and say nothing about the class, only the outline does.
Every shape contrasts with what it lies on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring", "crescent", "bar")
SMALLEST, LARGEST = 0.08, 0.6  # longest side of a shape as a share of the picture's, drawn log-uniformly
MOST_SHAPES = 6
ATTEMPTS = 10  # tries to place each shape before it is left out
# Of a shape's drawn pixels this share stays visible. A circle that is covered more by another one is a crescent.
LEAST_VISIBLE = 0.6
CONTRAST = 110.0  # distance in RGB between a shape and what it lies on
SUPERSAMPLE = 4  # outlines are filled at this many times the size, then averaged: cv2's own smooth edges fray
_SHIFT = 4  # cv2 takes polygon corners as whole numbers of 1/16 pixel


@dataclass
class Shape:
    """One placed shape; `visible` is what is left of `drawn` under later shapes."""

    label: int
    drawn: np.ndarray  # [S, S] bool
    visible: np.ndarray  # [S, S] bool
    truncated: bool  # reaches out of the picture

    def box(self) -> tuple[int, int, int, int]:
        """xmin, ymin, xmax, ymax of the visible pixels, corner at (0, 0)."""
        rows, columns = (np.flatnonzero(self.visible.any(axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Shape]]:
    """A picture [size, size, 3] uint8 RGB and its 1 to MOST_SHAPES shapes, the lowest first."""
    canvas = _background(rng, size)
    shapes: list[Shape] = []
    for _ in range(rng.integers(1, MOST_SHAPES + 1)):
        for _ in range(ATTEMPTS):
            if (placed := _placed(rng, size, shapes)) is not None:
                shape, cover = placed
                _paint(rng, canvas, shape, cover)
                for lower in shapes:
                    lower.visible &= ~shape.drawn
                shapes.append(shape)
                break
    canvas += np.float32(rng.uniform(2, 8)) * rng.standard_normal(canvas.shape, np.float32)
    return np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)), shapes


def _placed(rng: np.random.Generator, size: int, shapes: list[Shape]) -> tuple[Shape, np.ndarray] | None:
    """A random shape with its coverage [S, S] in 0…1, or None where it would hide too much of another."""
    label = int(rng.integers(len(CLASSES)))
    outlines = _outlines(rng, CLASSES[label], max(size * _log_uniform(rng, SMALLEST, LARGEST), 8.0))
    corners = np.concatenate(outlines)
    low, extent = corners.min(0), np.ptp(corners, 0)
    corner = rng.uniform(-0.1 * extent, size - 0.9 * extent)  # up to a tenth outside
    cover = _cover([outline + corner - low for outline in outlines], size)
    drawn = cover > 0.5
    if any((other.visible & ~drawn).sum() < LEAST_VISIBLE * other.drawn.sum() for other in shapes):
        return None
    truncated = bool((corner < 0).any() or (corner + extent > size).any())
    return Shape(label, drawn, drawn.copy(), truncated), cover


def _cover(outlines: list[np.ndarray], size: int) -> np.ndarray:
    """The share of every pixel [S, S] float32 that lies inside the polygons (even-odd, so the second is a hole)."""
    fine = np.zeros((size * SUPERSAMPLE,) * 2, np.uint8)
    corners = [np.round((SUPERSAMPLE * outline - 0.5) * 2**_SHIFT).astype(np.int32) for outline in outlines]
    cv2.fillPoly(fine, corners, 255, cv2.LINE_8, _SHIFT)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _outlines(rng: np.random.Generator, name: str, extent: float) -> list[np.ndarray]:
    """The polygons [n, 2] in pixels, stretched a little and turned; a second one is a hole."""
    stretch, angle = rng.uniform(0.85, 1.0), rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outlines = [outline * [1.0, stretch] @ turn.T for outline in OUTLINES[name]]
    return [outline * (extent / np.ptp(outlines[0], 0).max()) for outline in outlines]


def _arc(start: float, end: float, radius: float = 1.0, corners: int = 64) -> np.ndarray:
    """Points [corners, 2] of a circle about (0, 0), angles in turns."""
    angles = 2 * np.pi * np.linspace(start, end, corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _polygon(corners: int, inner: float | None = None) -> np.ndarray:
    """A regular polygon; with `inner`, every second corner lies on a circle of that radius."""
    points = _arc(0, 1, corners=corners + 1)[:-1]
    return points if inner is None else points * np.resize([1.0, inner], corners)[:, None]


def _cross(arm: float = 0.34) -> np.ndarray:
    quarters = [np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]])]
    for _ in range(3):
        quarters.append(quarters[-1] @ np.array([[0, 1], [-1, 0]]))  # a quarter turn
    return np.concatenate(quarters)


def _crescent(bite: float = 0.55) -> np.ndarray:
    """A disc without the disc of the same size that is moved by `bite`: the two arcs between their crossings."""
    half = np.arccos(bite / 2) / (2 * np.pi)
    outer = _arc(half, 1 - half)
    inner = _arc(0.5 + half, 0.5 - half) + np.array([bite, 0.0])
    return np.concatenate([outer, inner])


OUTLINES = {
    "circle": [_polygon(64)],
    "square": [_polygon(4)],
    "triangle": [_polygon(3)],
    "star": [_polygon(10, inner=0.42)],
    "cross": [_cross()],
    "ring": [_polygon(64), 0.58 * _polygon(64)],
    "crescent": [_crescent()],
    "bar": [np.array([[1.0, 0.27], [-1.0, 0.27], [-1.0, -0.27], [1.0, -0.27]])],
}


def _paint(rng: np.random.Generator, canvas: np.ndarray, shape: Shape, cover: np.ndarray) -> None:
    """Fills the shape on canvas [3, S, S] with one shaded colour that differs from what is under it."""
    below = canvas[:, shape.drawn].T  # [n, 3]
    below = below[:: max(len(below) // 64, 1)]
    candidates = rng.uniform(0, 255, (32, 3))
    # The tenth percentile, not the mean: the shape may lie half on the background and half on another shape.
    distance = np.quantile(np.linalg.norm(candidates[:, None] - below[None], axis=2), 0.1, axis=1)
    good = np.flatnonzero(distance >= CONTRAST)
    colour = candidates[good[0] if len(good) else distance.argmax()]
    canvas += cover * (_channels(colour) + np.float32(rng.uniform(0, 25)) * _ramp(rng, len(cover)) - canvas)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Two colours that blend into each other, soft blobs and, on every second picture, stripes: [3, S, S] float32."""
    canvas = _channels(rng.uniform(40, 215, 3)) + _channels(rng.uniform(-45, 45, 3)) * _ramp(rng, size)
    strength, cells = np.float32(rng.uniform(0, 18)), int(rng.integers(3, 9))
    for channel in canvas:
        coarse = strength * rng.standard_normal((cells, cells), np.float32)
        channel += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        waves = np.float32(rng.uniform(2, 14) * np.pi) * _ramp(rng, size)
        canvas += np.float32(rng.uniform(5, 22)) * np.sin(waves)
    return canvas


def _channels(colour: np.ndarray) -> np.ndarray:
    return colour.astype(np.float32)[:, None, None]


def _ramp(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rises from about -1 to 1 across the picture in a random direction: [S, S] float32."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-np.sqrt(0.5), np.sqrt(0.5), size)
    return (along * np.cos(angle) + along[:, None] * np.sin(angle)).astype(np.float32)
