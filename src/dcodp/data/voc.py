"""Reader of the PASCAL VOC layout: VOCdevkit/VOC<year>/{Annotations, ImageSets/Main, JPEGImages}.

The format is that of the development kits (Everingham et al., "The PASCAL Visual Object Classes Challenge"): boxes
are 1-based and inclusive, and objects that are `difficult` do not count in the evaluation.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcodp.data.parsing import CLIPPED, Listing, Problem, fit_box, gather, names, whole
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")  # fmt: skip


class _Object(NamedTuple):
    box: tuple[float, float, float, float]
    label: int
    difficult: bool


def find(root: Path, year: str) -> Path:
    """The folder of one year ("VOC2007") under `root`, which holds VOCdevkit or is VOCdevkit itself."""
    kits = [root / "VOCdevkit", root]
    for kit in kits:
        if (kit / year).is_dir():
            return kit / year
    present = names(path for kit in kits for path in kit.glob("VOC2*") if path.is_dir())
    remedy = f"set paths.data, or let `dcodp data fetch {year.lower()}` bring it"
    raise InputError(f"{root} holds no VOCdevkit/{year} (there: {present}); {remedy}")


def open_split(folder: Path, split: str, classes: Sequence[str] = CLASSES) -> Listing:
    """The images that ImageSets/Main/<split>.txt lists, in that order.

    Raises InputError where a folder or the list is missing; what is wrong with single images comes as problems.
    """
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (folder / part).is_dir():
            raise InputError(f"{folder / part} does not exist; {folder} is not complete: unpack it again")
    listed = ids(folder / "ImageSets" / "Main" / f"{split}.txt")
    known = {name: label for label, name in enumerate(classes)}
    seen: set[str] = set()

    def items():
        for name in listed:
            if name in seen:
                yield Problem(folder / "ImageSets" / "Main" / f"{split}.txt", f"lists image {name} twice")
            else:
                seen.add(name)
                yield from _image(folder, name, known)

    return Listing(tuple(classes), len(listed), items())


def ids(listed: Path) -> list[str]:
    """The names of the images that a split's file lists, in its order. Raises InputError where it lists none.

    The first word of every line: the per-class lists of VOC have a second one."""
    if not listed.is_file():
        there = names(path for path in listed.parent.glob("*.txt") if "_" not in path.stem)
        raise InputError(f"{listed} does not exist; choose a split that does (there: {there})")
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listed} cannot be read as text ({error}); replace it") from error
    found = [line.split()[0] for line in lines if line.strip()]
    if not found:
        raise InputError(f"{listed} lists no images; put one image name on each line")
    return found


def _image(folder: Path, name: str, known: dict[str, int]) -> list[LabelledImage | Problem]:
    annotation, path = folder / "Annotations" / f"{name}.xml", folder / "JPEGImages" / f"{name}.jpg"
    problems = [] if path.is_file() else [Problem(path, "is missing")]
    try:
        tree = parse(annotation)
        width, height = (pixels(tree, key) for key in ("width", "height"))
    except ValueError as error:
        return [*problems, Problem(annotation, str(error))]
    entries = [(f"object {number}", element) for number, element in enumerate(tree.findall("object"), 1)]
    objects, found = gather(annotation, entries, lambda element: _object(element, width, height, known))
    problems += found
    broken = any(problem.fatal for problem in problems)
    return [*problems] if broken else [*problems, _labelled(name, path, width, height, objects)]


def _labelled(name: str, path: Path, width: int, height: int, objects: list[_Object]) -> LabelledImage:
    return LabelledImage(
        id=name,
        path=path,
        width=width,
        height=height,
        boxes=np.array([o.box for o in objects], np.float32).reshape(-1, 4),
        labels=np.array([o.label for o in objects], np.int64),
        difficult=np.array([o.difficult for o in objects], bool),
        crowd=np.zeros(len(objects), bool),
    )


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses document types: annotations need none, and with one come entities (files read, memory filled)."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which annotations must not: delete the <!DOCTYPE …>")


def parse(annotation: Path) -> ElementTree.Element:
    """An image's annotation. Raises ValueError saying what is wrong with the file."""
    try:
        return ElementTree.fromstring(annotation.read_bytes(), ElementTree.XMLParser(target=_PlainTree()))
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: odd encodings
        raise ValueError(f"cannot be read as an XML annotation ({error})") from error


def pixels(tree: ElementTree.Element, key: str) -> int:
    """The image's "width" or "height". Raises ValueError where the annotation has none."""
    number = whole(tree.findtext(f"size/{key}", ""))
    if number is None or number < 1:
        raise ValueError(f"has no {key} in <size>, or not a positive whole number")
    return number


def _object(
    element: ElementTree.Element, width: int, height: int, known: dict[str, int]
) -> tuple[_Object, dict[str, str]]:
    label, (x, y, X, Y) = named_box(element, known)
    name = element.findtext("name", "").strip()
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise ValueError(f"({name}) has <difficult>{difficult}</difficult>; write 0 or 1")
    box, reaches_out = fit_box((x - 1, y - 1, X, Y), width, height)
    return _Object(box, label, difficult == "1"), {CLIPPED: reaches_out}


def named_box(element: ElementTree.Element, known: Mapping[str, int]) -> tuple[int, tuple[float, float, float, float]]:
    """The label and the corners x, y, X, Y of an object, as they stand in its annotation. Raises ValueError where
    there are none.

    Only the object's own <bndbox>; those of its <part>s lie one level deeper and are not objects.
    """
    name = element.findtext("name", "").strip()
    if name not in known:
        raise ValueError(f"is of unknown class {name!r}; known are {', '.join(known)}")
    if (bndbox := element.find("bndbox")) is None:
        raise ValueError(f"({name}) has no <bndbox>")
    try:
        x, y, X, Y = (float(bndbox.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise ValueError(f"({name}) has a box without four numbers") from None
    return known[name], (x, y, X, Y)
