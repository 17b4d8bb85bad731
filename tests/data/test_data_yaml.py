"""data.yaml as people write it: names with gaps, patterns, lists, other splits; beside ultralytics where it can."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from dcodp.config import DatasetConfig
from dcodp.data import data_yaml
from dcodp.data.splits import class_counts, load
from dcodp.data.yolo import open_split
from dcodp.errors import InputError


class Tree:
    """Images scans/{north,south}/{1,2}.png and other/images/3.png, an object of class 0 in each."""

    def __init__(self, root):
        self.root, self.file = root, root / "data.yaml"
        for image in ("scans/north/1.png", "scans/north/2.png", "scans/south/1.png", "other/images/3.png"):
            self.image(image)

    def image(self, name, row="0 0.5 0.5 0.5 0.5"):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
        label = self.root / name.replace("/images/", "/labels/")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.with_suffix(".txt").write_text(row + "\n")

    def write(self, text, names="[hat]"):
        self.file.write_text(f"{text}\nnames: {names}\n")

    def found(self, split="train", **changes):
        config = dataclasses.replace(DatasetConfig("custom", "custom", file=str(self.file)), **changes)
        return load(config, self.root, split)

    def ids(self, split="train", **changes):
        return [image.id for image in self.found(split, **changes).images]


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


NORTH = ["scans/north/1.png", "scans/north/2.png"]
SCANS = [*NORTH, "scans/south/1.png"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("scans", SCANS),
        ("scans/*", SCANS),
        ("scans/nor*", NORTH),
        ("scans/*/1.png", ["scans/north/1.png", "scans/south/1.png"]),
        ("'**/[13].png'", ["other/images/3.png", "scans/north/1.png", "scans/south/1.png"]),
        ("scans/north/2.png", ["scans/north/2.png"]),
        ("[scans/north, other/images]", ["other/images/3.png", *NORTH]),
        ("[scans/*, scans/north]", SCANS),  # each image once
        ("../scans/no*", NORTH),  # as Roboflow writes what lies beside data.yaml
        ("lists/*.txt", NORTH),
        ("[lists/first.txt, other/images/3.png]", ["other/images/3.png", "scans/north/1.png"]),
    ],
)
def test_where_the_images_of_a_split_are(tree, entry, expected):
    (tree.root / "lists").mkdir()
    (tree.root / "lists/first.txt").write_text("\ufeff../scans/north/1.png\n\n", encoding="utf-8")
    (tree.root / "lists/second.txt").write_text("scans/north/2.png\n")  # relative to the data set
    tree.write(f"train: {entry}")
    assert tree.ids() == expected


def test_a_list_may_be_relative_to_where_we_are(tree, monkeypatch):
    """As ultralytics takes lines that do not begin with ./"""
    monkeypatch.chdir(tree.root / "scans")
    (tree.root / "list.txt").write_text("north/1.png\n")
    tree.write("train: list.txt")
    assert tree.found().images[0].path.samefile(tree.root / "scans/north/1.png")


def test_a_folder_whose_name_looks_like_a_pattern(tree):
    tree.image("set[1]/images/9.png")
    tree.write("path: set[1]\ntrain: images\nval: images/*.png")
    assert tree.ids() == tree.ids("val") == ["images/9.png"]


@pytest.mark.parametrize("entry", ["scans/west*", "nowhere", "lists/*.txt"])
def test_an_entry_of_nothing_is_named(tree, entry):
    tree.write(f"train: {entry}")
    with pytest.raises(InputError, match="does not exist; put the images there or correct the entry") as error:
        tree.ids()
    assert entry in str(error.value) and "\n" not in str(error.value)


def test_the_split_is_chosen_by_its_key(tree):
    tree.write("train: scans/north\nval: scans/south\ntest: other/images")
    assert tree.ids("val") == ["scans/south/1.png"]
    assert tree.ids("val", val="test") == ["other/images/3.png"]
    assert tree.ids("train", train="test") == ["other/images/3.png"]
    with pytest.raises(InputError, match=r"no images under 'dev' \(splits there: train, val, test\)"):
        tree.ids("val", val="dev")


def test_validation_is_another_word_for_val(tree):
    tree.write("train: scans/north\nvalidation: scans/south")
    assert tree.ids("val") == ["scans/south/1.png"]


def classes(text):
    import yaml

    return data_yaml.classes("data.yaml", yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "names", "known"),
    [
        ("names: [a, b]", ("a", "b"), {0, 1}),
        ("names: {0: a, 1: b}", ("a", "b"), {0, 1}),
        ("names: {1: b, 0: a}\nnc: 2", ("a", "b"), {0, 1}),
        ("names: {'0': a, '1': b}\nnc: '2'", ("a", "b"), {0, 1}),
        ("names: {0: a, 3: b}", ("a", "class_1", "class_2", "b"), {0, 3}),
        ("names: {1: a, 2: b}\nnc: 2", ("class_0", "a", "b"), {1, 2}),
        ("names: {0: a, 2: b}\nnc: 3", ("a", "class_1", "b"), {0, 2}),
        ("nc: 2", ("class_0", "class_1"), {0, 1}),
        ("names: [1, true]\nnc: 2.0", ("1", "True"), {0, 1}),
    ],
)
def test_names(text, names, known):
    assert classes(text) == (names, known)


@pytest.mark.parametrize("text", ["names: {0: a, 2: b}\nnc: 4", "names: {0: class_1, 2: b}", "names: [a]\nnc: many"])
def test_names_that_do_not_fit(text):
    with pytest.raises(InputError, match="names that do not fit"):
        classes(text)


def test_labels_keep_their_numbers_where_names_have_gaps(tree):
    """As a detector's outputs are numbered; a number without a name is no class."""
    tree.image("scans/north/1.png", "2 0.5 0.5 0.5 0.5")
    tree.write("train: scans", names="{0: hat, 2: head}")
    found = tree.found()
    assert class_counts(found) == {"hat": 2, "class_1": 0, "head": 1} and found.images[0].labels.tolist() == [2]
    tree.image("scans/north/1.png", "1 0.5 0.5 0.5 0.5")
    with pytest.raises(InputError, match="line 1 is of unknown class 1; known are 0, 2"):
        tree.found()


@pytest.mark.parametrize("suffix", ["avif", "jp2", "TIF", "mpo"])
def test_every_format_that_ultralytics_reads_is_found(tree, suffix):
    """An image whose ending is not known would be left out without a word."""
    path = tree.root / f"more/images/a.{suffix}"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    (tree.root / "more/labels").mkdir()
    (tree.root / "more/labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    tree.write("train: more/images")
    assert tree.ids() == [f"more/images/a.{suffix}"]


def test_the_endings_are_those_of_ultralytics():
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.data.utils import IMG_FORMATS

    assert {suffix[1:] for suffix in data_yaml.SUFFIXES} == IMG_FORMATS


def test_images_listed_are_those_of_ultralytics(tree):
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.data.utils import check_det_dataset

    tree.write(f"path: {tree.root}\ntrain: scans\nval: [scans/north, other/images]", names="{0: hat}")
    theirs = check_det_dataset(str(tree.file), autodownload=False)
    assert open_split(tree.file, "train").classes == tuple(theirs["names"].values())
    assert [str(tree.root / key) for key in ("scans/north", "other/images")] == theirs["val"]
    assert len(tree.ids("val")) == 3
