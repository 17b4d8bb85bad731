"""Made-up data sets of a few tiny images in the real layouts, for tests to break."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 30


def write_image(path: Path, seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


class VocTree:
    """VOC2007 with images a (a dog, and a person with a head), b (a difficult cat) and c (nothing)."""

    def __init__(self, root: Path):
        self.root, self.folder = root, root / "VOCdevkit" / "VOC2007"
        part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
        self.annotate("a", self.object("dog", 1, 1, 40, 30), self.object("person", 2, 3, 20.5, 10.25, extra=part))
        self.annotate("b", self.object("cat", 5, 6, 5, 6, extra="<difficult>1</difficult>"))
        self.annotate("c")
        for seed, name in enumerate("abc"):
            write_image(self.image(name), seed)
        self.list("train", "a", "b", "c")
        self.list("val", "c", "a")

    @staticmethod
    def object(name, xmin, ymin, xmax, ymax, extra="") -> str:
        box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"

    def annotation(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def image(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"

    def annotate(self, name: str, *objects: str, head: str = "") -> None:
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        self.annotation(name).parent.mkdir(parents=True, exist_ok=True)
        self.annotation(name).write_text(f"{head}<annotation>{size}{''.join(objects)}</annotation>")

    def list(self, split: str, *names: str) -> None:
        path = self.folder / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))


class CocoTree:
    """Images 7 (two objects, one of them a crowd) and 5 (nothing); categories with ids 3 and 1, in that order."""

    def __init__(self, root: Path):
        self.root = root
        self.tree = {
            "images": [
                {"id": 7, "file_name": "7.jpg", "width": WIDTH, "height": HEIGHT},
                {"id": 5, "file_name": "5.jpg", "width": WIDTH, "height": HEIGHT},
            ],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 10, 20], "area": 90.5, "iscrowd": 0,
                 "segmentation": [[1, 2, 3, 4, 5, 6]]},
                {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "area": 1200, "iscrowd": 1},
            ],
            "categories": [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}],
        }  # fmt: skip
        for split in ("train2017", "val2017"):
            for seed, name in enumerate("75"):
                write_image(self.folder(split) / f"{name}.jpg", seed)
        self.write()

    def folder(self, split: str) -> Path:
        return self.root / "coco" / split

    def file(self, split: str) -> Path:
        return self.root / "coco" / "annotations" / f"instances_{split}.json"

    def write(self) -> None:
        for split in ("train2017", "val2017"):
            self.file(split).parent.mkdir(parents=True, exist_ok=True)
            self.file(split).write_text(json.dumps(self.tree))


@pytest.fixture
def voc_tree(tmp_path: Path) -> VocTree:
    return VocTree(tmp_path)


@pytest.fixture
def coco_tree(tmp_path: Path) -> CocoTree:
    return CocoTree(tmp_path)


@pytest.fixture(name="truncate")
def _truncate():
    return truncate


@pytest.fixture(name="write_image")
def _write_image():
    return write_image
