"""The full check lists everything that is wrong, and what is there."""

import dataclasses
import re
import shutil

import pytest
from typer.testing import CliRunner

from dcodp.cli import build_app
from dcodp.config import DatasetConfig
from dcodp.data.checking import check
from dcodp.data.splits import fingerprint, load

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


# --- the command -----------------------------------------------------------------------------------------------------


def dcodp_check(*words: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(build_app(), ["data", "check", *words])


def counts(told) -> dict[str, list[str]]:
    """The rows of the printed table: label → one text for each split."""
    rows = [line.strip("│").split("│") for line in told.stdout.splitlines() if line.startswith("│")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


REAL = {
    "voc2007": {"images": ["126 of 5,011", "448 of 4,952"], "dog": ["39", "62"], "aeroplane": ["0", "21"]},
    "voc2012": {"images": ["380 of 5,717", "220 of 5,823"], "cat": ["157", "94"], "aeroplane": ["0", "0"]},
    "coco2017": {"images": ["200 of 118,287", "500 of 5,000"], "objects": ["1,877", "4,668"]},
    "voc0712": {"images": ["726 of 16,551", "448 of 4,952"]},
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_the_command_counts_the_real_subsets(name, realdata):
    told = dcodp_check(name, "--data", str(realdata))
    shown = counts(told)
    assert told.exit_code == 0 and {key: shown[key] for key in REAL[name]} == REAL[name]
    assert shown["problems"] == ["0", "0"] and f"{name}: every image and annotation is whole" in told.stdout


@pytest.mark.realdata
def test_the_command_names_everything_broken_in_a_copy(realdata, tmp_path, truncate):
    source, copy = realdata / "VOCdevkit/VOC2007", tmp_path / "VOCdevkit/VOC2007"
    names = (source / "ImageSets/Main/trainval.txt").read_text().split()[:8]
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (copy / part).mkdir(parents=True)
    for name in names:
        shutil.copy(source / f"Annotations/{name}.xml", copy / "Annotations")
        shutil.copy(source / f"JPEGImages/{name}.jpg", copy / "JPEGImages")
    for split in ("trainval", "test"):
        (copy / f"ImageSets/Main/{split}.txt").write_text("\n".join(names))
    assert dcodp_check("voc2007", "--data", str(tmp_path)).exit_code == 0
    truncated, outside, missing, unknown, empty = names[:5]
    truncate(copy / f"JPEGImages/{truncated}.jpg")
    path = copy / f"Annotations/{outside}.xml"
    path.write_text(re.sub("<xmax>.*?</xmax>", "<xmax>9999</xmax>", path.read_text()))
    (copy / f"JPEGImages/{missing}.jpg").unlink()
    path = copy / f"Annotations/{unknown}.xml"
    path.write_text(re.sub("(<object>\\s*<name>).*?<", "\\1unicorn<", path.read_text(), count=1))
    (copy / f"Annotations/{empty}.xml").write_text("")
    told = dcodp_check("voc2007", "--data", str(tmp_path))
    assert told.exit_code == 1 and counts(told)["images"] == ["3 of 5,011", "3 of 4,952"]
    for file, what in (
        (f"{truncated}.jpg", "is not a readable image (image file is truncated"),
        (f"{outside}.xml", "has a box outside its"),
        (f"{missing}.jpg", "is missing"),
        (f"{unknown}.xml", "is of unknown class 'unicorn'"),
        (f"{empty}.xml", "cannot be read as an XML annotation"),
    ):
        assert sum(file in line and what in line for line in told.stdout.splitlines()) >= 2, file  # in both splits


def test_a_set_whose_data_yaml_lies_in_the_data_folder(tmp_path, write_image):
    folder = tmp_path / "some, 'odd' folder"
    for split in ("train", "val", "test"):
        write_image(folder / f"bccd/images/{split}/a.jpg")
        labels = folder / f"bccd/labels/{split}/a.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text("0 0.5 0.5 0.5 0.5\n")
    names = "train: images/train\nval: images/val\ntest: images/test\nnames: [RBC]\n"
    (folder / "bccd/data.yaml").write_text(names)
    told = dcodp_check("bccd", "--data", str(folder))
    assert told.exit_code == 0 and "BCCD: every image and annotation is whole" in told.stdout
    assert "test (test)" in told.stdout


def test_the_command_refuses_what_it_cannot_check(tmp_path):
    assert "use one of bccd, coco2017, custom" in str(dcodp_check("voc2017").exception)
    assert "one at a time" in str(dcodp_check("voc2007,voc2012").exception)
    told = dcodp_check("custom", f"dataset.file={tmp_path}/data.yaml")
    assert told.exit_code == 1 and told.stdout.count("data.yaml does not exist") == 1
