"""The generated data set: what is drawn, that it is repeatable, and that nobody reads half of it."""

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest

from dcodp.config import DatasetConfig
from dcodp.data import scene as scenes
from dcodp.data import shapes
from dcodp.data.images import read_image
from dcodp.data.scene import CLASSES, scene
from dcodp.data.splits import class_counts, load
from dcodp.errors import InputError
from dcodp.files import leased

SMALL = DatasetConfig(generate_train=6, generate_val=3, generate_size=96)


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_read_back_by_the_voc_reader(tmp_path):
    train, val = load(SMALL, tmp_path / "new", "train"), load(SMALL, tmp_path / "new", "val")
    assert (len(train), len(val)) == (6, 3) and train.classes == CLASSES and not train.subset
    assert sum(class_counts(train).values()) == sum(len(image.boxes) for image in train.images)
    for image in (*train.images, *val.images):
        assert read_image(image.path, (96, 96)).std() > 3 and 1 <= len(image.boxes) <= 6
    assert load(dataclasses.replace(SMALL, train_limit=2), tmp_path / "new", "train").subset


def test_same_settings_same_bytes(tmp_path):
    first, again = (contents(shapes.ensure(SMALL, tmp_path / name)) for name in ("a", "b"))
    assert first == again and len(first) == 9 * 2 + 2
    other = contents(shapes.ensure(dataclasses.replace(SMALL, generate_seed=1), tmp_path / "a"))
    assert not {path for path in first if path.endswith(".jpg") and first[path] == other[path]}
    assert len(list((tmp_path / "a").glob("shapes-*"))) == 2  # each settings have their own folder


def test_a_finished_set_is_not_written_again(tmp_path, monkeypatch):
    folder = shapes.ensure(SMALL, tmp_path)
    monkeypatch.setattr(shapes, "_generate", None)
    assert shapes.ensure(SMALL, tmp_path) == folder


def test_scenes_keep_their_promises():
    """Boxes are those of the visible pixels, nothing is mostly hidden, all classes and sizes occur."""
    labels, sides = [], []
    for seed in range(60):
        picture, placed = scene(np.random.default_rng(seed), 128)
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8 and 1 <= len(placed) <= scenes.MOST_SHAPES
        for k, shape in enumerate(placed):
            covered = np.any([other.drawn for other in placed[k + 1 :]] or [np.zeros_like(shape.drawn)], axis=0)
            assert np.array_equal(shape.visible, shape.drawn & ~covered)
            assert shape.visible.sum() >= scenes.LEAST_VISIBLE * shape.drawn.sum() > 0
            xmin, ymin, xmax, ymax = shape.box()
            assert shape.visible[ymin:ymax, xmin:xmax].sum() == shape.visible.sum()
            assert shape.visible[ymin].any() and shape.visible[ymax - 1].any()
            assert shape.visible[:, xmin].any() and shape.visible[:, xmax - 1].any()
            labels.append(shape.label)
            sides.append(max(xmax - xmin, ymax - ymin) / 128)
    assert set(labels) == set(range(len(CLASSES)))
    assert min(sides) < 0.12 and max(sides) > 0.5 and max(sides) < 0.63


def test_shapes_stand_out_from_what_they_lie_on():
    """The pixels just inside a shape differ clearly from those just outside, in the median over scenes and at worst."""
    distances = []
    for seed in range(40):
        picture, (shape, *_) = scene(np.random.default_rng([7, seed]), 128)
        rim = cv2.dilate(shape.drawn.astype(np.uint8), np.ones((5, 5))) > shape.drawn
        outside = picture[rim].astype(float)
        distances.append(np.linalg.norm(picture[shape.visible].mean(0) - outside.mean(0)))
    assert np.median(distances) > scenes.CONTRAST and min(distances) > 30


@pytest.mark.parametrize("name", CLASSES)
def test_outlines_are_as_large_as_asked(name):
    outlines = scenes._outlines(np.random.default_rng(0), name, 50.0)
    assert np.ptp(outlines[0], 0).max() == pytest.approx(50)
    cover = scenes._cover([outline - outlines[0].min(0) + 5 for outline in outlines], 60)
    rows = np.flatnonzero((cover > 0.5).any(1))
    assert abs(len(rows) - np.ptp(outlines[0], 0)[1]) <= 2.5
    assert ((cover > 0) & (cover < 1)).sum() > 10  # smooth edges


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*choose a writable folder with paths\.data"):
        shapes.ensure(SMALL, tmp_path / "file")


def test_those_that_start_together_generate_once(tmp_path, monkeypatch):
    """A lease is a file, so threads stand for processes here."""
    written, generate = [], shapes._generate

    def counted(*arguments):
        written.append(arguments)
        time.sleep(0.2)
        generate(*arguments)

    monkeypatch.setattr(shapes, "_generate", counted)
    threads = [threading.Thread(target=shapes.ensure, args=(SMALL, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1 and len(load(SMALL, tmp_path, "train")) == 6


def generate_endlessly(root):
    shapes.ensure(dataclasses.replace(SMALL, generate_train=100_000), root)


def test_a_killed_generation_leaves_nothing_to_trust(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=generate_endlessly, args=(tmp_path,))
    process.start()
    while not list(tmp_path.glob(".shapes-*.partial/**/*.jpg")):
        time.sleep(0.05)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.glob("shapes-*"))
    (lock,) = tmp_path.glob(".shapes-*.lock")
    with leased(tmp_path, "the images", wait=False, marker=lock):  # the next process need not wait
        pass


def test_what_a_killed_process_left_is_cleared(tmp_path):
    """Its partial folder has the name that the next generation of the same settings uses."""
    expected = contents(shapes.ensure(SMALL, tmp_path / "whole"))
    name = next((tmp_path / "whole").glob("shapes-*")).name
    left = tmp_path / "left" / f".{name}.partial" / "VOCdevkit" / "shapes" / "JPEGImages" / "junk.jpg"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"junk")
    assert contents(shapes.ensure(SMALL, tmp_path / "left")) == expected
    assert [path.name for path in (tmp_path / "left").glob("*shapes*") if path.is_dir()] == [name]
