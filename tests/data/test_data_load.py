"""From settings to a detection set: limits, subsets, broken items, fingerprints."""

import dataclasses
import logging

import numpy as np
import pytest

from dcodp.config import DatasetConfig
from dcodp.data.splits import class_counts, fingerprint, load
from dcodp.errors import InputError

VOC = DatasetConfig("voc2007", "voc", "train", "val")


def ids(found):
    return [image.id for image in found.images]


def test_splits_by_their_names_in_the_layout(voc_tree):
    assert ids(load(VOC, voc_tree.root, "train")) == ["a", "b", "c"] and ids(load(VOC, voc_tree.root, "val")) == [
        "c",
        "a",
    ]
    swapped = dataclasses.replace(VOC, train="val", val="train")
    found = load(swapped, voc_tree.root, "train")
    assert ids(found) == ["c", "a"] and (found.name, found.split) == ("voc2007", "train")
    with pytest.raises(InputError, match="split 'test' is not known"):
        load(VOC, voc_tree.root, "test")


def test_missing_data_folder_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"paths\.data=.* does not exist; give the folder .* dataset=shapes"):
        load(VOC, tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match=r"layout=yolo is not known"):
        load(dataclasses.replace(VOC, layout="yolo"), tmp_path, "train")


def test_limits_take_the_first_and_make_a_subset(voc_tree):
    limited = dataclasses.replace(VOC, train_limit=2)
    found = load(limited, voc_tree.root, "train")
    assert ids(found) == ["a", "b"] and found.subset
    assert ids(load(limited, voc_tree.root, "val")) == ["c", "a"]
    with pytest.raises(InputError, match=r"dataset\.train_limit=0 is out of range"):
        load(dataclasses.replace(VOC, train_limit=0), voc_tree.root, "train")


@pytest.mark.parametrize(("published", "subset"), [(None, False), (3, False), (5011, True)])
def test_subset_by_the_published_size(voc_tree, published, subset):
    found = load(dataclasses.replace(VOC, published_train=published, published_val=9), voc_tree.root, "train")
    assert found.subset is subset


def test_broken_items_are_refused(voc_tree):
    voc_tree.annotation("b").write_text("")
    with pytest.raises(InputError, match=r"b\.xml cannot be read.*dataset\.broken=skip") as error:
        load(VOC, voc_tree.root, "train")
    assert "\n" not in str(error.value)
    assert ids(load(dataclasses.replace(VOC, train_limit=1), voc_tree.root, "train")) == ["a"]  # never got there


def test_broken_items_are_skipped_with_one_warning(voc_tree, truncate, caplog):
    voc_tree.annotation("b").write_text("")
    truncate(voc_tree.image("c"))
    with caplog.at_level(logging.WARNING):
        found = load(dataclasses.replace(VOC, broken="skip"), voc_tree.root, "train")
    assert ids(found) == ["a"] and found.subset
    (record,) = caplog.records
    assert "b.xml cannot be read" in record.getMessage() and "c.jpg is not a readable image" in record.getMessage()


def test_skipping_fills_the_limit_with_whole_images(voc_tree):
    voc_tree.image("a").unlink()
    found = load(dataclasses.replace(VOC, broken="skip", train_limit=2), voc_tree.root, "train")
    assert ids(found) == ["b", "c"]


def test_nothing_left_is_an_error(voc_tree):
    for name in "abc":
        voc_tree.image(name).unlink()
    with pytest.raises(InputError, match="no readable image"):
        load(dataclasses.replace(VOC, broken="skip"), voc_tree.root, "train")


def test_class_counts(voc_tree, coco_tree):
    counts = class_counts(load(VOC, voc_tree.root, "train"))
    assert len(counts) == 20 and {name: n for name, n in counts.items() if n} == {"dog": 1, "person": 1, "cat": 1}
    coco = DatasetConfig("coco2017", "coco", "train2017", "val2017")
    assert class_counts(load(coco, coco_tree.root, "val")) == {"person": 1, "car": 1}


def test_fingerprint_tells_contents_not_places(voc_tree, tmp_path):
    first = fingerprint(load(VOC, voc_tree.root, "train"))
    voc_tree.root.joinpath("VOCdevkit").rename(tmp_path / "moved")
    assert fingerprint(load(VOC, tmp_path / "moved", "train")) == first


@pytest.mark.parametrize("change", ["order", "box", "class", "flag", "image"])
def test_fingerprint_tells_every_change(voc_tree, change, write_image):
    first = fingerprint(load(VOC, voc_tree.root, "train"))
    if change == "order":
        voc_tree.list("train", "b", "a", "c")
    elif change == "image":
        write_image(voc_tree.image("a"), seed=9)
    else:
        name, xmin, flag = {"box": ("cat", 4, 1), "class": ("dog", 5, 1), "flag": ("cat", 5, 0)}[change]
        voc_tree.annotate("b", voc_tree.object(name, xmin, 6, 5, 6, extra=f"<difficult>{flag}</difficult>"))
    assert fingerprint(load(VOC, voc_tree.root, "train")) != first


def test_fingerprint_needs_the_files(voc_tree):
    found = load(VOC, voc_tree.root, "train")
    voc_tree.image("a").unlink()
    with pytest.raises(InputError, match=r"a\.jpg is missing"):
        fingerprint(found)


def test_arrays_have_the_promised_types(voc_tree, coco_tree):
    coco = DatasetConfig("coco2017", "coco", "train2017", "val2017")
    for found in (load(VOC, voc_tree.root, "train"), load(coco, coco_tree.root, "train")):
        for image in found.images:
            kinds = [array.dtype for array in (image.boxes, image.labels, image.difficult, image.crowd)]
            assert kinds == [np.float32, np.int64, bool, bool]
