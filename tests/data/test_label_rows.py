"""Rows of YOLO's text format: each is read as what it is, as ultralytics reads it, or refused in one line."""

import logging

import numpy as np
import pytest
from PIL import Image

from dcodp.config import DatasetConfig
from dcodp.data.checking import check
from dcodp.data.label_rows import looks_like_poses
from dcodp.data.parsing import Problem
from dcodp.data.splits import fingerprint, load
from dcodp.data.yolo import open_split
from dcodp.errors import InputError

SIDE = 100
BOX = "0 0.7 0.6 0.2 0.4"  # 60, 40, 80, 80


class Rows:
    """A data set of one 100×100 px image (and what a test adds) under both splits."""

    def __init__(self, root):
        self.root, self.file = root, root / "data.yaml"
        for part in ("images", "labels"):
            (root / part).mkdir()

    def write(self, *rows, head="", name="a"):
        Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(self.root / f"images/{name}.png")
        (self.root / f"labels/{name}.txt").write_text("".join(f"{row}\n" for row in rows))
        self.file.write_text(f"train: images\nval: images\nnames: [person, dog]\n{head}")

    def read(self, *rows, head=""):
        self.write(*rows, head=head)
        return list(open_split(self.file, "train").items)

    def image(self, *rows, head=""):
        """The image, where nothing is to be said of it."""
        (image,) = self.read(*rows, head=head)
        return image

    def refused(self, *rows, head="") -> str:
        (problem,) = self.read(*rows, head=head)
        assert isinstance(problem, Problem) and problem.fatal
        return problem.what

    @property
    def config(self):
        return DatasetConfig("custom", "custom", file=str(self.file))

    def load(self):
        return load(self.config, self.root, "train")

    def theirs(self, task="detect", head=""):
        """class, centre, size [n, 5] by ultralytics' own reader; None where it leaves the image out."""
        from dcodp import _ultralytics

        _ultralytics.prepare()
        from ultralytics.data.utils import verify_image_label

        count, each = (2, 2) if head else (0, 0)
        files = str(self.root / "images/a.png"), str(self.root / "labels/a.txt")
        return verify_image_label((*files, "", task == "pose", 2, count, each, False))[1]


@pytest.fixture
def rows(tmp_path):
    return Rows(tmp_path)


def assert_as_theirs(image, theirs):
    """The same objects in any order, boxes clipped to the image as ultralytics' training does."""
    centre, size = theirs[:, 1:3] * SIDE, theirs[:, 3:5] * SIDE
    expected = np.concatenate([centre - size / 2, centre + size / 2], 1).clip(0, SIDE)
    order = [
        np.lexsort(np.c_[boxes, labels].T) for boxes, labels in ((image.boxes, image.labels), (expected, theirs[:, 0]))
    ]
    np.testing.assert_allclose(image.boxes[order[0]], expected[order[1]], atol=1e-3)


POSE = "kpt_shape: [2, 2]\n"


@pytest.mark.parametrize(
    ("lines", "head"),
    [
        ([BOX, "1 0.2 0.2 0.1 0.1"], ""),
        ([f"{BOX} 0.65 0.65 0.75 0.75"], POSE),
        ([f"{BOX} 0 0 0 0"], POSE),  # keypoints that are not marked
        ([f"{BOX} 0.65 0.65 0.75 0.75", "1 0.2 0.2 0.1 0.1"], POSE),  # one has none
        (["0 0.1 0.2 0.9 0.2 0.5 0.8"], ""),
        (["1 0.5 0.3 0.7 0.5 0.5 0.7 0.3 0.5"], ""),  # the corners of a turned box
        (["0 0.9 0.5 0.4 0.2"], ""),
        (["0 0.005 0.5 1 1"], ""),
        (["0 0.8 0.1 1.1 0.1 1.1 0.4"], ""),  # an outline that reaches out
        ([BOX, BOX], ""),
    ],
)
def test_rows_are_read_as_ultralytics_reads_them(rows, lines, head):
    (image,) = [item for item in rows.read(*lines, head=head) if not isinstance(item, Problem)]
    assert_as_theirs(image, rows.theirs(head=head))


@pytest.mark.parametrize(
    "row",
    [
        "0 1.02 0.5 0.4 0.2",
        "0 0.5 0.5 1.02 0.2",
        "0 0.5 0.5 -0.005 0.2",
        "0 0.5 -0.02 0.1 0.1",
        "0 1.1 0.1 1.3 0.1 1.3 0.4",
        "0 nan 0.5 0.1 0.1",
        "2 0.5 0.5 0.1 0.1",
    ],
)
def test_what_ultralytics_leaves_out_is_broken(rows, row):
    assert rows.refused(row)
    assert rows.theirs() is None


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (f"{BOX} 0.65 0.65 0.75 0.75", "[2, 2]"),
        (f"{BOX} 0.65 0.65 2 0.75 0.75 0", "[2, 3]"),
        (f"{BOX} {' '.join(['0.7 0.6 1'] * 17)}", "[17, 3]"),
        (f"{BOX} 0.7 0.7", "[1.0, '2']"),
    ],
)
def test_pose_rows_give_their_box(rows, row, shape):
    image = rows.image(row, head=f"kpt_shape: {shape}\n")
    np.testing.assert_allclose(image.boxes, [[60, 40, 80, 80]], atol=1e-4)


def test_with_keypoints_other_long_rows_are_refused(rows):
    assert "a box has 4, with kpt_shape 8" in rows.refused("0 0.1 0.2 0.9 0.2 0.5 0.8", head=POSE)


@pytest.mark.parametrize("shape", ["17", "[17]", "[0, 3]", "[17, 4]", "[a, 2]", "[17, 3, 1]", "{}"])
def test_a_shape_of_keypoints_that_is_none(rows, shape):
    rows.write(BOX, head=f"kpt_shape: {shape}\n")
    with pytest.raises(InputError, match=r"write \[number of keypoints, 2 or 3") as error:
        open_split(rows.file, "train")
    assert "\n" not in str(error.value)


POSES = [
    "0 0.7 0.6 0.2 0.4 0.62 0.45 0.75 0.75",
    "0 0.3 0.3 0.3 0.2 0.2 0.35 0.44 0.3",
    "1 0.5 0.5 0.6 0.4 0.3 0.4 0 0",
]


def test_poses_that_data_yaml_does_not_tell_of_are_refused(rows):
    rows.write(*POSES)
    with pytest.raises(InputError, match=r"boxes with keypoints \(8 numbers after the class\); add kpt_shape") as error:
        open_split(rows.file, "train")
    assert "\n" not in str(error.value)
    assert len(rows.image(*POSES, head=POSE).boxes) == 3
    items = rows.read(*POSES, head="kpt_shape: [0, 0]\n")  # whoever knows better
    assert len(items) == 1 and not np.allclose(items[0].boxes[0], [60, 40, 80, 80])


def test_random_outlines_and_corners_are_not_taken_for_poses():
    rng = np.random.default_rng(0)
    for _ in range(200):
        middle, half, angle = rng.uniform(0.3, 0.7, (5, 1, 2)), rng.uniform(0.02, 0.25, (5, 2)), rng.uniform(0, 7, 5)
        across = np.stack([np.cos(angle), np.sin(angle)], 1) * half[:, :1]
        along = np.stack([-np.sin(angle), np.cos(angle)], 1) * half[:, 1:]
        corners = np.stack([across + along, across - along, -across - along, along - across], 1) + middle
        assert not looks_like_poses(corners.reshape(5, 8).tolist())
        turns = np.sort(rng.uniform(0, 2 * np.pi, (5, 7)), 1)
        outline = middle + 0.2 * np.stack([np.cos(turns), np.sin(turns)], 2)
        assert not looks_like_poses(outline.reshape(5, 14).tolist())


def test_outlines_are_said_once_and_are_no_problem(rows, caplog):
    rows.write("0 0.1 0.2 0.9 0.2 0.5 0.8", "1 0.5 0.3 0.7 0.5 0.5 0.7 0.3 0.5", "0 0.1 0.1 0.2 0.2")
    with caplog.at_level(logging.WARNING):
        (image,) = rows.load().images
    np.testing.assert_allclose(image.boxes, [[10, 20, 90, 80], [30, 30, 70, 70], [0, 0, 20, 20]], atol=1e-4)
    (record,) = caplog.records
    assert "labels/a.txt line 1 has 6 numbers after the class (2 rows are outlines" in record.getMessage()
    assert check(rows.config, rows.root).problems == ()


def test_a_sixth_number_is_a_confidence(rows, caplog):
    rows.write(f"{BOX} 0.93", "1 0.2 0.2 0.1 0.1 0.5", "1 0.4 0.4 0.1 0.1")
    (image,) = rows.load().images
    np.testing.assert_allclose(image.boxes[0], [60, 40, 80, 80], atol=1e-4)
    (record,) = caplog.records
    assert len(image.boxes) == 3 and "line 1 has 5 numbers after the class (2 rows have a sixth" in record.getMessage()
    assert "no confidence" in rows.refused(f"{BOX} 1.57")  # an angle, or a track's number


def test_boxes_are_clipped_counted_and_said_once(rows, caplog):
    rows.write("0 0.9 0.5 0.4 0.2", "1 0.1 0.1 0.3 0.2", "1 0.5 0.5 0.1 0.1", "0 0.998 0.5 0.02 0.1")
    (image,) = rows.load().images
    expected = [[70, 40, 100, 60], [0, 0, 25, 20], [45, 45, 55, 55], [98.8, 45, 100, 55]]
    np.testing.assert_allclose(image.boxes, expected, atol=1e-3)
    (record,) = caplog.records  # the last row reaches out by less than a pixel: rounding
    assert "line 1 has a box that reaches out of its 100×100 px image" in record.getMessage()
    assert "(2 boxes reach out of their images and are clipped to them)" in record.getMessage()
    report = check(rows.config, rows.root)
    assert report.ok and [len(split.problems) for split in report.splits] == [1, 1]


@pytest.mark.parametrize(
    "row", ["0 0.5 0.5 0 0.1", "0 0.5 0.5 0.1 0", "0 0.5 0.2 0.5 0.4 0.5 0.6", "0 1.005 0.5 0.01 0.1"]
)
def test_a_box_of_no_size_is_left_out_alone(rows, row, caplog):
    rows.write("1 0.5 0.5 0.1 0.1", row, row.replace("0.5", "0.4"))
    (image,) = rows.load().images
    assert image.labels.tolist() == [1]
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert "line 2 has a box of zero size" in told and "(2 boxes have no size and are left out)" in told


def test_repeated_rows_are_left_out_and_counted(rows, caplog):
    rows.write(BOX, BOX, BOX.replace("0.7", "0.70"), "1" + BOX[1:])
    (image,) = rows.load().images
    assert image.labels.tolist() == [0, 1]
    assert "line 2 repeats an object (2 rows repeat" in caplog.text


def test_notes_do_not_change_what_is_read(rows):
    """The clipped box and the box that always lay inside make the same set."""
    rows.write("0 0.85 0.5 0.3 0.2")
    inside = fingerprint(rows.load())
    rows.write("0 0.9 0.5 0.4 0.2")
    assert fingerprint(rows.load()) == inside
