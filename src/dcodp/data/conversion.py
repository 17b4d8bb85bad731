"""From VOC's layout to Ultralytics' one, which `dcodp prune` and every YOLO tool read: each image once, a text file of
boxes beside it, and a data.yaml."""

from __future__ import annotations

import hashlib
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import yaml

from dcodp.data import voc
from dcodp.errors import InputError
from dcodp.progress import track

SPLITS = ("train", "val", "test")


def to_ultralytics(folder: Path, into: Path, classes: Sequence[str]) -> None:
    """Copies the images of `folder` (JPEGImages, Annotations, ImageSets/Main/{train,val,test}.txt) into the new folder
    `into`, with their boxes.

    Corners are taken as they stand, as labelImg writes them; VOC's own are one pixel further. A box without any area
    is left out. Raises InputError for a list, an image or an annotation that is missing or not understood.
    """
    known = {name: label for label, name in enumerate(classes)}
    for split in SPLITS:
        ids = voc.ids(folder / "ImageSets" / "Main" / f"{split}.txt")
        images, labels = (into / kind / split for kind in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for name in track(ids, f"converting {split}"):
            annotation, image = folder / "Annotations" / f"{name}.xml", folder / "JPEGImages" / f"{name}.jpg"
            try:
                rows = _rows(voc.parse(annotation), known)
            except ValueError as error:
                raise InputError(f"{annotation} {error}; fetch it again") from error
            if not image.is_file():
                raise InputError(f"{image} is missing; fetch it again")
            (labels / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
            shutil.copy(image, images)
    described = {split: f"images/{split}" for split in SPLITS} | {"names": dict(enumerate(classes))}
    (into / "data.yaml").write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")


def _rows(tree: ElementTree.Element, known: dict[str, int]) -> list[str]:
    """ "class x y width height" of each object: shares of the image, of the box's middle and size."""
    width, height = (voc.pixels(tree, key) for key in ("width", "height"))
    rows = []
    for element in tree.findall("object"):
        label, (left, top, right, bottom) = voc.named_box(element, known)
        wide, high = right - left, bottom - top
        if min(wide, high) > 0:
            shares = ((left + right) / 2 / width, (top + bottom) / 2 / height, wide / width, high / height)
            rows.append(" ".join([str(label), *(f"{share:.6f}" for share in shares)]))
    return rows


def content(folder: Path) -> str:
    """What the folder holds, names and bytes of all files, as one SHA-256; no matter how it was packed."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{found}  {path.relative_to(folder).as_posix()}\n".encode())
    return whole.hexdigest()
