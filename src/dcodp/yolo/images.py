"""The user's data as ultralytics reads them, and calibration images out of them."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from dcodp.data import data_yaml
from dcodp.data.images import letterbox, map_ahead, read_image
from dcodp.data.yolo import require_labels
from dcodp.errors import InputError
from dcodp.files import write_atomically
from dcodp.progress import track

log = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
PASSED_ON = ("kpt_shape", "flip_idx", "kpt_names", "kpt_oks_sigmas", "channels")  # keys of a task
FONT = "Arial.ttf"  # which ultralytics would fetch, for pictures that are not drawn here


@dataclass(frozen=True)
class Images:
    """Where images lie, by split, and the file (or, to classify, the folder) that ultralytics is given."""

    data: Path | None
    splits: dict[str, list[Path]]
    names: tuple[str, ...] | None = None

    def of(self, split: str) -> list[Path]:
        if split not in self.splits:
            raise InputError(f"the data have no {split} split (there: {', '.join(self.splits)}); choose another")
        return self.splits[split]


def from_yaml(file: Path, folder: Path) -> Images:
    """`file` is an Ultralytics data.yaml. What ultralytics is given is written anew into `folder`, with the images
    listed: nothing is looked up in its settings, and no download script that a data.yaml may carry is run."""
    tree = data_yaml.read(file)
    names, _ = data_yaml.classes(file, tree)
    splits = {split: data_yaml.images(file, tree, split) for split in SPLITS if tree.get(split) or split != "test"}
    for split, paths in splits.items():
        if split != "test":  # which may be unlabelled
            require_labels(paths, split)
        # Not resolved: labels lie beside a link to an image, not beside the image.
        write_atomically(folder / f"{split}.txt", "\n".join(os.path.abspath(path) for path in paths) + "\n")
    told = {split: str((folder / f"{split}.txt").resolve()) for split in splits}
    told |= {"names": dict(enumerate(names))} | {key: tree[key] for key in PASSED_ON if key in tree}
    write_atomically(folder / "data.yaml", yaml.safe_dump(told, sort_keys=False))
    return Images(folder / "data.yaml", splits, names)


def from_folder(folder: Path) -> Images:
    """Images without labels, all of them to be looked at."""
    return Images(None, {"train": _in(folder)})


def from_classes(folder: Path) -> Images:
    """To classify: FOLDER/train/CLASS/… and FOLDER/val or test."""
    splits = {split: _in(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if "train" not in splits or len(splits) < 2:
        raise InputError(f"{folder} has no train and val folders with one folder per class; give such a folder")
    names = tuple(sorted(place.name for place in (folder / "train").iterdir() if place.is_dir()))
    return Images(folder.resolve(), splits, names)


def _in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in data_yaml.SUFFIXES)
    if not found:
        raise InputError(f"{folder} holds no images; give a folder of .jpg or .png files")
    return found


def calibration(paths: Sequence[Path], count: int, size: int, batch: int, seed: int) -> list[Tensor]:
    """`count` images drawn without replacement (all where there are fewer), as batches [B, 3, size, size] uint8 RGB.

    A file that cannot be read is passed over, as by ultralytics. Raises InputError where none can be.
    """
    if len(paths) < count:
        log.warning("%d images are all there are, so calibration uses these instead of %d", len(paths), count)
    drawn = (paths[k] for k in np.random.default_rng(seed).permutation(len(paths)))
    read = (letterbox(image, size)[0] for _, image in readable(drawn, batch))
    squares = list(track(itertools.islice(read, count), "reading", min(count, len(paths))))
    if not squares:
        raise InputError(f"none of {len(paths)} images can be read, such as {paths[0]}; give others")
    return [torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).contiguous() for part in _parts(squares, batch)]


def readable(paths: Iterable[Path], ahead: int = 1) -> Iterator[tuple[Path, np.ndarray]]:
    """Path and RGB [H, W, 3] of the images that can be read; the others are named in the log."""

    def tried(path: Path) -> tuple[Path, np.ndarray | None]:
        try:
            return path, read_image(path)
        except InputError:
            log.warning("%s cannot be read and is passed over", path)
            return path, None

    for path, image in map_ahead(tried, paths, ahead):
        if image is not None:
            yield path, image


def _parts(items: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    yield from (items[k : k + size] for k in range(0, len(items), size))


def place_font() -> None:
    """Puts a font where ultralytics looks for the one that it would fetch."""
    from matplotlib import font_manager
    from ultralytics.utils import USER_CONFIG_DIR

    for name in (FONT, "Arial.Unicode.ttf"):
        if not (USER_CONFIG_DIR / name).exists():
            write_atomically(USER_CONFIG_DIR / name, Path(font_manager.findfont("DejaVu Sans")).read_bytes())
