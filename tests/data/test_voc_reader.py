"""The VOC reader on made-up trees, whole and broken, and on the real subsets."""

import numpy as np
import pytest

from dcodp.config import DatasetConfig
from dcodp.data.parsing import Problem
from dcodp.data.splits import load
from dcodp.data.voc import CLASSES, find, open_split
from dcodp.errors import InputError


def read(tree, split="train"):
    return list(open_split(tree.folder, split).items)


def problem(tree) -> Problem:
    """The only problem among the items; the other images must have been read."""
    items = read(tree)
    found = [item for item in items if isinstance(item, Problem)]
    assert len(found) == 1 and found[0].fatal and len(items) == 3
    return found[0]


def test_boxes_become_continuous_and_keep_order(voc_tree):
    a, b, c = read(voc_tree)
    assert (a.id, b.id, c.id) == ("a", "b", "c") and (a.width, a.height) == (40, 30)
    np.testing.assert_array_equal(a.boxes, np.float32([[0, 0, 40, 30], [1, 2, 20.5, 10.25]]))
    np.testing.assert_array_equal(b.boxes, np.float32([[4, 5, 5, 6]]))  # one pixel
    assert [CLASSES[k] for k in a.labels] == ["dog", "person"] and a.difficult.tolist() == [False, False]
    assert b.difficult.tolist() == [True] and not b.crowd.any() and b.area is None
    assert c.boxes.shape == (0, 4) and c.boxes.dtype == np.float32 and c.labels.dtype == np.int64
    assert [image.id for image in read(voc_tree, "val")] == ["c", "a"]


def test_root_is_the_kit_or_holds_it(voc_tree):
    assert find(voc_tree.root, "VOC2007") == find(voc_tree.root / "VOCdevkit", "VOC2007") == voc_tree.folder


def test_missing_folders_and_lists_say_what_there_is(voc_tree):
    with pytest.raises(InputError, match=r"no VOCdevkit/VOC2012 \(there: VOC2007\)"):
        find(voc_tree.root, "VOC2012")
    with pytest.raises(InputError, match=r"test\.txt does not exist.*train, val"):
        open_split(voc_tree.folder, "test")
    voc_tree.list("empty")
    with pytest.raises(InputError, match=r"empty\.txt lists no images"):
        open_split(voc_tree.folder, "empty")
    (voc_tree.folder / "Annotations").rename(voc_tree.folder / "Elsewhere")
    with pytest.raises(InputError, match="Annotations does not exist"):
        open_split(voc_tree.folder, "train")


def test_class_list_of_two_columns(voc_tree):
    voc_tree.list("dog_train", "a  1", "c -1", "")
    assert [image.id for image in read(voc_tree, "dog_train")] == ["a", "c"]


def test_image_that_is_missing(voc_tree):
    voc_tree.image("b").unlink()
    assert str(problem(voc_tree)) == f"{voc_tree.image('b')} is missing"


def test_annotation_that_is_missing(voc_tree):
    voc_tree.annotation("b").unlink()
    assert str(problem(voc_tree)) == f"{voc_tree.annotation('b')} is missing"


@pytest.mark.parametrize("content", ["", "<annotation>", "no XML", '<?xml version="1.0" encoding="klingon"?><a/>'])
def test_annotation_that_is_no_xml(voc_tree, content):
    voc_tree.annotation("b").write_text(content)
    found = problem(voc_tree)
    assert found.file == voc_tree.annotation("b") and "cannot be read as an XML annotation" in found.what


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_types_and_their_entities_are_refused(voc_tree, encoding):
    head = '<!DOCTYPE annotation [<!ENTITY name "cat">]>'
    voc_tree.annotate("b", voc_tree.object("&name;", 1, 1, 2, 2), head=head)
    voc_tree.annotation("b").write_bytes(voc_tree.annotation("b").read_text().encode(encoding))
    assert "document type" in problem(voc_tree).what


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (("cow", 1, 1, 99, 30), "outside its 40×30 px image"),
        (("cow", -31, 1, 4, 30), "outside"),
        (("cow", "one", 1, 4, 30), "without four numbers"),
        (("cow", "nan", 1, 4, 30), "not finite"),
        (("cow", 1, 1, "inf", 30), "not finite"),
        (("unicorn", 1, 1, 4, 30), "unknown class 'unicorn'"),
        (("", 1, 1, 4, 30), "unknown class ''"),
    ],
)
def test_object_that_cannot_be(voc_tree, box, message):
    voc_tree.annotate("b", voc_tree.object("cat", 1, 1, 9, 9), voc_tree.object(*box))
    found = problem(voc_tree)
    assert found.file == voc_tree.annotation("b") and found.what.startswith("object 2 ") and message in found.what


def test_object_without_box(voc_tree):
    part = voc_tree.object("head", 1, 1, 2, 2).replace("object>", "part>")  # a part's box is not the object's
    voc_tree.annotate("b", f"<object><name>cat</name>{part}</object>")
    assert problem(voc_tree).what == "object 1 (cat) has no <bndbox>"


def test_difficult_flag_that_is_none(voc_tree):
    voc_tree.annotate("b", voc_tree.object("cat", 1, 1, 9, 9, extra="<difficult>maybe</difficult>"))
    assert "<difficult>maybe" in problem(voc_tree).what


def test_one_pixel_outside_is_clipped(voc_tree):
    """Tools that count from 0 write xmin 0, and round up at the far side."""
    voc_tree.annotate("b", voc_tree.object("cat", 0, 0, 40.9, 31))
    np.testing.assert_array_equal(read(voc_tree)[1].boxes, [[0, 0, 40, 30]])


@pytest.mark.parametrize(("box", "clipped"), [((1, 1, 46, 30), [0, 0, 40, 30]), ((-9, -4, 20, 10), [0, 0, 20, 10])])
def test_further_out_is_clipped_and_said(voc_tree, box, clipped):
    voc_tree.annotate("b", voc_tree.object("cat", *box))
    _, note, b, _ = read(voc_tree)
    assert b.boxes.tolist() == [clipped]
    assert not note.fatal and note.what.startswith("object 1 has a box that reaches out of its 40×30 px image")


@pytest.mark.parametrize("box", [(9, 1, 8, 30), (9, 9, 12, 5), (41, 1, 42, 30)])
def test_boxes_of_no_size_are_left_out_alone(voc_tree, box):
    voc_tree.annotate("b", voc_tree.object("cow", *box), voc_tree.object("cat", 1, 1, 9, 9))
    _, note, b, _ = read(voc_tree)
    assert CLASSES[b.labels[0]] == "cat" and len(b.boxes) == 1
    assert not note.fatal and note.what.startswith("object 1 has a box of zero size")


def test_sizes_written_as_floats(voc_tree):
    text = voc_tree.annotation("a").read_text().replace(">40<", "> 40.0 <").replace(">30<", ">30.00<")
    voc_tree.annotation("a").write_text(text)
    a, *_ = read(voc_tree)
    assert (a.width, a.height) == (40, 30) and isinstance(a.width, int)


@pytest.mark.parametrize(
    "size", ["", "<size><width>40</width></size>", "<size><width>0</width><height>9</height></size>"]
)
def test_annotation_without_size(voc_tree, size):
    voc_tree.annotation("b").write_text(f"<annotation>{size}</annotation>")
    assert "in <size>" in problem(voc_tree).what


def test_image_listed_twice(voc_tree):
    voc_tree.list("train", "a", "b", "a")
    assert "lists image a twice" in str(problem(voc_tree))


def test_every_problem_of_an_image_is_named(voc_tree):
    voc_tree.image("b").unlink()
    voc_tree.annotate("b", voc_tree.object("unicorn", 1, 1, 4, 30), voc_tree.object("cow", 1, 1, 99, 30))
    assert len([item for item in read(voc_tree) if isinstance(item, Problem)]) == 3


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("year", "splits"),
    [
        ("2007", {"train": 60, "val": 66, "trainval": 126, "test": 448}),
        ("2012", {"train": 380, "val": 220}),
    ],
)
def test_real_splits(realdata, year, splits):
    for split, size in splits.items():
        config = DatasetConfig(f"voc{year}", "voc", train=split, published_train=10000)
        found = load(config, realdata, "train")
        assert len(found) == size and found.subset and found.classes == CLASSES


@pytest.mark.realdata
def test_a_real_annotation(realdata):
    found = load(DatasetConfig("voc2007", "voc", "trainval", "test"), realdata, "val")
    image = next(image for image in found.images if image.id == "000001")
    np.testing.assert_array_equal(image.boxes, [[47, 239, 195, 371], [7, 11, 352, 498]])
    assert [found.classes[k] for k in image.labels] == ["dog", "person"] and (image.width, image.height) == (353, 500)
    assert sum(int(image.difficult.sum()) for image in found.images) == 286
