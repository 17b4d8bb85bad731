"""Data sets of one's own: Ultralytics' data.yaml, pairs of COCO JSON files, and VOC splits joined."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dcodp.compose import cells, register
from dcodp.config import Config, DatasetConfig
from dcodp.data.checking import check
from dcodp.data.images import read_image
from dcodp.data.splits import fingerprint, load
from dcodp.errors import InputError
from dcodp.identity import run_id

CONF = Path(__file__).resolve().parents[2] / "conf"
UNION = DatasetConfig("voc0712", "voc", "VOC2007/train+VOC2012/train", "VOC2007/val")


class YoloTree:
    """40×30 px images: train a (two objects), b (none, empty label file); val c (an outline)."""

    def __init__(self, root, write_image):
        self.root, self.file = root, root / "data.yaml"
        for seed, name in enumerate(("train/a", "train/b", "val/c")):
            write_image(self.image(name), seed)
        self.label("train/a", "0 0.5 0.5 0.5 0.2", "1 0.25 0.5 0.5 1")
        self.label("train/b")
        self.label("val/c", "1 0.1 0.2 0.9 0.2 0.5 0.8")
        self.describe()

    def image(self, name):
        return self.root / "images" / f"{name}.jpg"

    def labels(self, name):
        return self.root / "labels" / f"{name}.txt"

    def label(self, name, *lines):
        self.labels(name).parent.mkdir(parents=True, exist_ok=True)
        self.labels(name).write_text("".join(f"{line}\n" for line in lines))

    def describe(self, text="train: images/train\nval: images/val\nnc: 2\nnames: [hat, head]\n"):
        self.file.write_text(text)

    @property
    def config(self):
        return DatasetConfig("custom", "custom", file=str(self.file))

    def load(self, split="train", **changes):
        return load(dataclasses.replace(self.config, **changes), self.root / "nowhere", split)


@pytest.fixture
def yolo(tmp_path, write_image):
    return YoloTree(tmp_path, write_image)


def refused(function, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_data_yaml(yolo):
    train, val = yolo.load(), yolo.load("val")
    assert train.classes == ("hat", "head") and [i.id for i in train.images] == [f"images/train/{n}.jpg" for n in "ab"]
    a, b = train.images
    np.testing.assert_allclose(a.boxes, [[10, 12, 30, 18], [0, 0, 20, 30]], atol=1e-5)
    assert a.labels.tolist() == [0, 1] and (a.width, a.height) == (40, 30) and b.boxes.shape == (0, 4)
    np.testing.assert_allclose(val.images[0].boxes, [[4, 6, 36, 24]], atol=1e-5)
    assert [x.dtype for x in (a.boxes, a.labels, a.difficult, a.crowd)] == [np.float32, np.int64, bool, bool]
    assert not train.subset and len(fingerprint(train)) == 12


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train\nnames: {1: head, 0: hat}\n",
        "train: ../images/train\nnames: [hat, head]\n",  # as Roboflow writes it
        "train: [images/train/a_list.txt, images/train]\nnames: [hat, head]\n",
        "path: {root}\ntrain: list.txt\nnames: [hat, head]\n",
    ],
)
def test_other_ways_to_write_it(yolo, text):
    (yolo.root / "list.txt").write_text("./images/train/b.jpg\n\nimages/train/a.jpg\n")
    (yolo.root / "images/train/a_list.txt").write_text("./a.jpg\n")
    yolo.describe(text.replace("{root}", str(yolo.root)))
    train = yolo.load()
    assert [i.path.name for i in train.images] == ["a.jpg", "b.jpg"] and train.classes == ("hat", "head")


def test_labels_beside_the_images_where_no_folder_is_called_images(yolo):
    for split in ("train", "val"):
        shutil.move(yolo.root / "images" / split, yolo.root / split)
        for label in (yolo.root / "labels" / split).iterdir():
            shutil.move(label, yolo.root / split)
    yolo.describe("train: train\nval: val\nnames: [hat, head]\n")
    assert [len(i.boxes) for i in yolo.load().images] == [2, 0]


def test_boxes_follow_the_turned_picture(yolo):
    pixels = Image.open(yolo.image("train/a"))
    exif = pixels.getexif()
    exif[274] = 6  # a quarter turn: 40×30 stored, 30×40 seen
    pixels.save(yolo.image("train/a"), exif=exif)
    a = yolo.load().images[0]
    assert (a.width, a.height) == (30, 40) and read_image(a.path, (30, 40)).shape == (40, 30, 3)
    np.testing.assert_allclose(a.boxes[0], [7.5, 16, 22.5, 24], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown class 2; known are 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown class 0.5"),
        ("0 0.5 0.5 0.1", "has 3 numbers after the class"),
        ("hat 0.5 0.5 0.1 0.1", "is no row of numbers"),
        ("0 20 15 10 10", "no share of the image's width"),
        ("0 0.5 0.5 -0.005 0.1", "no share of the image's width"),
        ("0 0.5 0.5 0.1 1.02", "no share of the image's width"),
        ("0 nan 0.5 0.1 0.1", "no share of the image's width"),
    ],
)
def test_broken_labels_are_named(yolo, line, message):
    yolo.label("train/a", "0 0.5 0.5 0.5 0.2", line)
    told = refused(yolo.load)
    assert "labels/train/a.txt line 2" in told and message in told and "dataset.broken=skip" in told
    assert [i.path.name for i in yolo.load(broken="skip").images] == ["b.jpg"]


def test_every_problem_is_listed(yolo, truncate):
    yolo.label("train/a", "0 0.5 0.5 0.5 0.2", "0 0.5 0.5 0.5 0.2")
    yolo.labels("train/b").unlink()
    truncate(yolo.image("val/c"))
    report = check(yolo.config, yolo.root)
    assert not report.ok and [s.images for s in report.splits] == [2, 0] and report.splits[0].objects["hat"] == 1
    repeated, bare, torn = report.problems
    assert (
        "line 2 repeats an object (1 rows" in repeated and "1 images without a label file" in bare and "b.jpg" in bare
    )
    assert "c.jpg is not a readable image" in torn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "needs `names`"),
        ("train: images/train\nnames: {hat: 0, head: 1}\n", "needs `names`"),
        ("train: images/train\nnames: {0: hat, -1: head}\n", "needs `names`"),
        ("train: images/train\nnames: {0: hat, 9999999: head}\n", "needs `names`"),
        ("train: images/train\nnames: hat\n", "needs `names`"),
        ("train: images/train\nnames: [hat]\nnc: 2\n", "names that do not fit"),
        ("train: images/train\nnames: [hat, hat]\n", "names that do not fit"),
        ("names: [hat, head]\n", "names no images under 'train'"),
        ("train: images/dev\nnames: [hat]\n", "images/dev does not exist"),
        ("train: labels\nnames: [hat]\n", "no image lies under 'train'"),
        ("path: /nowhere\ntrain: images/train\nnames: [hat]\n", "is no folder"),
        ("- hat\n", "is no data.yaml"),
        ("train: [", "is not readable YAML"),
    ],
)
def test_a_data_yaml_that_cannot_be_used(yolo, text, message):
    yolo.describe(text)
    assert message in refused(yolo.load)


def test_no_labels_at_all_is_a_mistake(yolo):
    shutil.rmtree(yolo.root / "labels")
    assert "all other labels of 'train'" in refused(yolo.load)


def test_a_pair_of_coco_files(coco_tree):
    train, val = (str(coco_tree.file(split)) for split in ("train2017", "val2017"))
    folder = str(coco_tree.folder("train2017"))
    config = DatasetConfig("mine", "custom", train, val, train_images=folder)
    found = load(config, coco_tree.root / "nowhere", "train")
    assert [i.id for i in found.images] == ["7", "5"] and found.classes == ("person", "car") and not found.subset
    assert found.images[0].path.is_relative_to(folder)
    for name in ("7.jpg", "5.jpg"):  # without val_images: beside the JSON file
        shutil.copy(coco_tree.folder("val2017") / name, coco_tree.file("val2017").parent)
    assert check(config, coco_tree.root).ok
    gone = dataclasses.replace(config, val="gone.json")
    assert "gone.json does not exist" in refused(load, gone, coco_tree.root, "val")


def test_without_files_it_says_which_settings_to_give():
    config = DatasetConfig("custom", "custom")
    assert "give dataset.file=PATH/data.yaml" in refused(load, config, None, "train")
    assert "give dataset.file=PATH/data.yaml" in refused(run_id, Config(dataset=config))


def test_custom_sets_are_told_apart(yolo, write_image):
    register()
    ((_, config),) = cells(CONF, ["dataset=custom", f"dataset.file={yolo.file}", "schedule=finetune"])
    assert config.dataset == yolo.config
    first = run_id(config)
    other = YoloTree(yolo.root / "other", write_image)  # the same text at another place means other images
    config.dataset.file = str(other.file)
    second = run_id(config)
    other.describe("train: images/val\nval: images/val\nnames: [hat, head]\n")
    assert len({first, second, run_id(config)}) == 3


def test_other_sets_keep_their_identity():
    base, changed = Config(), Config()
    changed.dataset.file, changed.dataset.train_images = "x", "y"  # which shapes never look at
    assert run_id(base) == run_id(changed)


@pytest.fixture
def two_years(voc_tree):
    """VOC2007 and the same under other names as VOC2012."""
    later = voc_tree.folder.parent / "VOC2012"
    shutil.copytree(voc_tree.folder, later)
    for part in ("Annotations", "JPEGImages"):
        for path in list((later / part).iterdir()):
            path.rename(path.with_stem(f"2008_{path.stem}"))
    (later / "ImageSets/Main/train.txt").write_text("2008_a\n2008_b\n")
    return voc_tree


def test_the_union_of_two_years(two_years):
    train, val = (load(UNION, two_years.root, split) for split in ("train", "val"))
    assert [i.id for i in train.images] == ["a", "b", "c", "2008_a", "2008_b"]
    assert [i.id for i in val.images] == ["c", "a"]
    assert train.images[3].path.parent.parent.name == "VOC2012"
    assert check(UNION, two_years.root).splits[0].listed == 5


def test_a_union_that_does_not_work(two_years):
    later = two_years.folder.parent / "VOC2012"
    twice = dataclasses.replace(UNION, train="VOC2007/a+VOC2007/a")
    assert "names a part twice" in refused(load, twice, two_years.root, "train")
    shutil.copy(later / "JPEGImages/2008_a.jpg", later / "JPEGImages/a.jpg")
    shutil.copy(later / "Annotations/2008_a.xml", later / "Annotations/a.xml")
    (later / "ImageSets/Main/train.txt").write_text("a\n")
    assert "has the name of an image of VOC2007/train" in refused(load, UNION, two_years.root, "train")
    shutil.rmtree(later)
    assert "holds no VOCdevkit/VOC2012" in refused(load, UNION, two_years.root, "train")
