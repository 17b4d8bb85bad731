"""The full check lists everything that is wrong, and what is there."""

import dataclasses

import pytest

from dcodp.config import DatasetConfig
from dcodp.data.check import check
from dcodp.data.load import fingerprint, load

VOC = DatasetConfig("voc2007", "voc", "train", "val", published_val=4952)
COCO = DatasetConfig("coco2017", "coco", "train2017", "val2017")


def test_a_whole_set(voc_tree):
    report = check(VOC, voc_tree.root)
    train, val = report.splits
    assert report.ok and report.problems == () and (train.split, val.split) == ("train", "val")
    assert (train.listed, train.images, train.difficult, train.crowd, train.objects["dog"]) == (3, 3, 1, 0, 1)
    assert train.fingerprint == fingerprint(load(VOC, voc_tree.root, "train")) and val.published == 4952


def test_every_problem_is_listed(voc_tree, truncate, write_image):
    truncate(voc_tree.image("a"))
    write_image(voc_tree.image("c"), width=41)
    voc_tree.annotate("b", voc_tree.object("unicorn", 1, 1, 2, 2), voc_tree.object("cat", 1, 1, 99, 9))
    report = check(dataclasses.replace(VOC, broken="skip", train_limit=1), voc_tree.root)
    names = [problem.rsplit("/", 1)[-1].split(" ")[0] for problem in report.problems]
    assert names == ["a.jpg", "b.xml", "b.xml", "c.jpg", "c.jpg", "a.jpg"]  # train, then val
    assert not report.ok and report.splits[0].images == 0 and report.splits[0].listed == 3


def test_a_split_that_cannot_be_opened_leaves_the_other(voc_tree):
    report = check(dataclasses.replace(VOC, val="test"), voc_tree.root)
    assert len(report.splits) == 1 and not report.ok
    assert len(report.errors) == 1 and "test.txt does not exist" in report.problems[0]


def test_boxes_left_out_are_listed_but_fine(coco_tree):
    coco_tree.tree["annotations"][0]["bbox"] = [1, 1, 0, 4]
    coco_tree.write()
    report = check(COCO, coco_tree.root)
    assert report.ok and len(report.problems) == 2 and "zero size" in report.problems[0]
    assert report.splits[0].crowd == 1 and report.splits[0].objects == {"person": 1, "car": 0}


def test_splits_must_have_the_same_classes(coco_tree):
    coco_tree.file("val2017").write_text(coco_tree.file("val2017").read_text().replace('"car"', '"cart"'))
    report = check(COCO, coco_tree.root)
    assert not report.ok and "differ in their classes" in report.problems[0]


@pytest.mark.realdata
def test_the_real_subset_is_whole(realdata):
    report = check(dataclasses.replace(VOC, train="train"), realdata)
    assert report.ok and report.problems == () and [split.images for split in report.splits] == [60, 66]
