"""The COCO reader on made-up trees, whole and broken, and on the real subset."""

import numpy as np
import pytest

from dcodp.config import DatasetConfig
from dcodp.data.coco import open_split
from dcodp.data.parsing import Problem
from dcodp.data.splits import load
from dcodp.errors import InputError


def read(tree):
    tree.write()
    return list(open_split(tree.root, "val2017").items)


def problem(tree) -> Problem:
    found = [item for item in read(tree) if isinstance(item, Problem)]
    assert len(found) == 1
    return found[0]


def test_boxes_labels_and_flags(coco_tree):
    listing = open_split(coco_tree.root, "val2017")
    assert listing.classes == ("person", "car") and listing.category_ids == (1, 3) and listing.size == 2
    first, empty = listing.items
    assert (first.id, empty.id) == ("7", "5") and first.path == coco_tree.folder("val2017") / "7.jpg"
    np.testing.assert_array_equal(first.boxes, np.float32([[1.5, 2, 11.5, 22], [0, 0, 40, 30]]))
    assert first.labels.tolist() == [1, 0] and first.crowd.tolist() == [False, True]
    assert first.area.tolist() == [90.5, 1200] and not first.difficult.any()
    assert empty.boxes.shape == (0, 4) and empty.area.shape == (0,)


def test_root_is_the_folder_or_holds_it(coco_tree):
    assert open_split(coco_tree.root / "coco", "val2017").size == open_split(coco_tree.root, "val2017").size


def test_missing_files_say_what_there_is(coco_tree):
    with pytest.raises(InputError, match=r"instances_test2017\.json does not exist \(there: .*instances_val2017"):
        open_split(coco_tree.root, "test2017")
    coco_tree.folder("val2017").rename(coco_tree.root / "elsewhere")
    with pytest.raises(InputError, match="val2017 does not exist; unpack"):
        open_split(coco_tree.root, "val2017")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": {}}', "no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no images"),
        ('{"images": [{}], "annotations": [], "categories": []}', "needs categories"),
        ('{"images": [{}], "annotations": [], "categories": [{"id": 1}]}', "category without"),
        (
            '{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}',
            "each with an id of its own",
        ),
        (
            '{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "b", "name": "b"}]}',
            "others with words",
        ),
        ('{"images": [{}], "annotations": [], "categories": [{"id": null, "name": "a"}]}', "category without"),
        ('{"images": [{}], "annotations": [], "categories": [[]]}', "category without"),
    ],
)
def test_file_that_is_not_coco(coco_tree, content, message):
    coco_tree.file("val2017").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        open_split(coco_tree.root, "val2017")
    assert str(coco_tree.file("val2017")) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [30, 2, 40, 3]}, "outside its 40×30 px image"),
        ({"bbox": [-9, 2, 4, 3]}, "outside"),
        ({"bbox": [1, 2, 3]}, "no bbox of four numbers"),
        ({"bbox": [1, 2, 3, "x"]}, "no bbox of four numbers"),
        ({"bbox": None}, "no bbox of four numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, "not finite"),
        ({"area": float("inf")}, "not finite"),
        ({"iscrowd": "no"}, "iscrowd 'no'"),
        ({"category_id": 2}, "unknown category 2"),
        ({"category_id": [1]}, r"unknown category \[1\]"),
    ],
)
def test_annotation_that_cannot_be(coco_tree, changes, message):
    coco_tree.tree["annotations"][1].update(changes)
    found = problem(coco_tree)
    assert found.fatal and found.file == coco_tree.file("val2017")
    with pytest.raises(InputError, match=rf"annotations\[1\] of 7\.jpg .*{message}"):
        load(config(), coco_tree.root, "val")


def config(**changes):
    return DatasetConfig("coco2017", "coco", "train2017", "val2017", **changes)


@pytest.mark.parametrize("size", [[0, 5], [5, 0], [5, -1]])
def test_boxes_of_zero_size_are_left_out_and_their_image_kept(coco_tree, size):
    """The published train2017 has two of them."""
    coco_tree.tree["annotations"][0]["bbox"] = [3, 3, *size]
    items = read(coco_tree)
    assert isinstance(items[0], Problem) and not items[0].fatal and "zero size" in items[0].what
    assert items[1].boxes.tolist() == [[0, 0, 40, 30]] and items[1].labels.tolist() == [0]
    assert len(load(config(), coco_tree.root, "val")) == 2


def test_rounding_at_the_edge_is_clipped(coco_tree):
    coco_tree.tree["annotations"][0]["bbox"] = [30, 20, 10.01, 10.5]
    assert read(coco_tree)[0].boxes[0].tolist() == [30, 20, 40, 30]


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [([-4, -3, 10, 10], [0, 0, 6, 7]), ([30, 20, 18, 14], [30, 20, 40, 30]), ([-5, -5, 50, 50], [0, 0, 40, 30])],
)
def test_boxes_that_reach_out_are_clipped_and_said(coco_tree, bbox, clipped, caplog):
    coco_tree.tree["annotations"][0]["bbox"] = bbox
    note, image, _ = read(coco_tree)
    assert image.boxes[0].tolist() == clipped and len(image.boxes) == 2
    assert not note.fatal and "annotations[0] of 7.jpg has a box that reaches out of its 40×30 px image" in note.what
    load(config(), coco_tree.root, "val")
    assert [r.getMessage().count("(1 boxes reach out of their images and are clipped") for r in caplog.records] == [1]


def test_numbers_written_as_text_or_floats(coco_tree):
    """Sizes as 96.0, ids as text: exporters of several annotation tools write them so."""
    coco_tree.tree["images"][0].update(id="7", width=40.0, height="30.0")
    coco_tree.tree["annotations"][0].update(image_id=7, category_id="3")
    coco_tree.tree["annotations"][1].update(image_id="7", category_id=1.0)
    coco_tree.tree["categories"] = [{"id": "3", "name": "car"}, {"id": 1.0, "name": "person"}]
    coco_tree.write()
    listing = open_split(coco_tree.root, "val2017")
    assert listing.classes == ("person", "car") and listing.category_ids == (1, 3)
    first, empty = listing.items
    assert (first.id, first.width, first.height, empty.id) == ("7", 40, 30, "5") and first.labels.tolist() == [1, 0]


def test_words_as_ids(coco_tree):
    coco_tree.tree["images"][0]["id"] = "seven"
    coco_tree.tree["categories"] = [{"id": "v", "name": "car"}, {"id": "p", "name": "person"}]
    for entry, category in zip(coco_tree.tree["annotations"], "vp", strict=True):
        entry.update(image_id="seven", category_id=category)
    coco_tree.write()
    listing = open_split(coco_tree.root, "val2017")
    assert listing.classes == ("car", "person") and listing.category_ids == ()  # counted from 1, as they are listed
    first, _ = listing.items
    assert first.id == "seven" and first.labels.tolist() == [0, 1]


def test_large_ids_are_not_rounded(coco_tree):
    """Beyond 2^53 a float would make two ids one."""
    for entry, number in zip(coco_tree.tree["images"], (2**60 + 1, str(2**60 + 2)), strict=True):
        entry["id"] = number
    for entry in coco_tree.tree["annotations"]:
        entry["image_id"] = str(2**60 + 1)
    first, second = read(coco_tree)
    assert (len(first.boxes), len(second.boxes)) == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, r"images\[1\] has a width or height"),
        ({"width": 40.5}, r"images\[1\] has a width or height"),
        ({"height": "tall"}, r"images\[1\] has a width or height"),
        ({"id": None}, r"images\[1\] has an id that is no whole number and no text: None"),
        ({"id": True}, r"images\[1\] has an id"),
        ({"file_name": None}, r"images\[1\] has a file_name"),
        ({"id": 7}, r"images\[1\] repeats the id 7"),
        ({"file_name": "8.jpg"}, r"8\.jpg is missing"),
    ],
)
def test_image_that_cannot_be(coco_tree, changes, message):
    coco_tree.tree["images"][1].update(changes)
    problem(coco_tree)
    with pytest.raises(InputError, match=message):
        load(config(), coco_tree.root, "val")


def test_image_entry_without_fields(coco_tree):
    coco_tree.tree["images"][1] = {"id": 5}
    assert "lacks id, file_name" in problem(coco_tree).what


@pytest.mark.parametrize("image", [6, None, [7]])
def test_annotation_of_no_image(coco_tree, image):
    coco_tree.tree["annotations"][1]["image_id"] = image
    assert problem(coco_tree).what == "annotations[1] belongs to no image that is listed"


@pytest.mark.realdata
def test_the_real_subset(realdata):
    val, train = (load(config(published_train=118287, published_val=5000), realdata, s) for s in ("val", "train"))
    assert (len(val), len(train)) == (500, 200) and val.subset and train.subset
    assert sum(len(image.boxes) for image in val.images) == 4668
    assert len(val.classes) == 80 and val.category_ids[0] == 1 and val.category_ids[-1] == 90
    first = val.images[0]
    assert first.id == "139" and (first.width, first.height) == (640, 426)
    assert np.isin(64, np.array(val.category_ids)[first.labels])
