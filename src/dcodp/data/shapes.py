"""A generated detection data set, so that everything runs without a download.

Written once per settings as <root>/shapes-<digest>/VOCdevkit/shapes in the VOC layout and read by the VOC reader.
The same settings give the same bytes on the same library versions.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from dcodp.config import DatasetConfig
from dcodp.data.scene import CLASSES, Shape, scene
from dcodp.errors import InputError
from dcodp.files import digest, leased
from dcodp.progress import track

GENERATOR = 1  # raise it whenever a change to scene.py or to this file changes what is written
JPEG_QUALITY = 92


def ensure(config: DatasetConfig, root: Path) -> Path:
    """The folder of the data set in the VOC layout, generated if it is not there yet.

    It is written beside its place and renamed at the end, so a folder of that name is always complete; processes
    that start at the same time wait for the one that generates. Raises InputError where `root` cannot be written.
    """
    settings = {
        "generator": GENERATOR,
        "train": config.generate_train,
        "val": config.generate_val,
        "seed": config.generate_seed,
        "size": config.generate_size,
    }
    name = f"shapes-{digest(settings)}"
    finished = root / name
    if not finished.is_dir():
        try:
            with leased(root, "the generated images", marker=root / f".{name}.lock", setting="paths.data"):
                if not finished.is_dir():
                    _generate(config, root / f".{name}.partial", finished)
        except OSError as error:
            raise InputError(f"{root} cannot hold the generated images ({error}); set paths.data elsewhere") from error
    return _folder(finished)


def _folder(root: Path) -> Path:
    return root / "VOCdevkit" / "shapes"


def _generate(config: DatasetConfig, partial: Path, finished: Path) -> None:
    if partial.exists():  # of a process that was killed: nobody else writes while the lock is held
        shutil.rmtree(partial)
    folder = _folder(partial)
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    counts = {"train": config.generate_train, "val": config.generate_val}
    jobs = [(split, k) for split, count in counts.items() for k in range(count)]
    for split, k in track(jobs, "generating shapes"):
        seed = [config.generate_seed, list(counts).index(split), k]
        _write(folder, _name(split, k), np.random.default_rng(seed), config.generate_size)
    for split, count in counts.items():
        lines = "".join(f"{_name(split, k)}\n" for k in range(count))
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
    os.rename(partial, finished)


def _name(split: str, k: int) -> str:
    return f"{split}_{k:06d}"


def _write(folder: Path, name: str, rng: np.random.Generator, size: int) -> None:
    picture, shapes = scene(rng, size)
    path = folder / "JPEGImages" / f"{name}.jpg"
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    path.write_bytes(encoded.tobytes())
    (folder / "Annotations" / f"{name}.xml").write_text(_annotation(name, size, shapes), encoding="utf-8")


def _annotation(name: str, size: int, shapes: list[Shape]) -> str:
    objects = "".join(_object(shape) for shape in shapes)
    return (
        f"<annotation>\n\t<folder>shapes</folder>\n\t<filename>{name}.jpg</filename>\n"
        f"\t<size><width>{size}</width><height>{size}</height><depth>3</depth></size>\n{objects}</annotation>\n"
    )


def _object(shape: Shape) -> str:
    """VOC counts pixels from 1 and includes the last one."""
    xmin, ymin, xmax, ymax = shape.box()
    return (
        f"\t<object><name>{CLASSES[shape.label]}</name><truncated>{int(shape.truncated)}</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{xmin + 1}</xmin><ymin>{ymin + 1}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>\n"
    )
