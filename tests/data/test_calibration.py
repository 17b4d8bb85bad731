"""Labelled calibration batches: the same images as without labels, and boxes where the objects are."""

import dataclasses

import numpy as np
import torch

from dcodp.config import DatasetConfig
from dcodp.data.calibration import calibration_batches
from dcodp.data.images import calibration_images
from dcodp.data.splits import load


def test_images_and_boxes(tmp_path):
    config = DatasetConfig(generate_train=7, generate_val=1, generate_size=96)
    train = load(config, tmp_path, "train")
    crowd = dataclasses.replace(train.images[0], crowd=np.ones(len(train.images[0].boxes), bool))
    train = dataclasses.replace(train, images=(crowd, *train.images[1:]))
    found = list(calibration_batches(train, 5, 64, 2, seed=3))
    plain = list(calibration_images(train, 5, 64, 2, seed=3))
    assert [len(batch.images) for batch in found] == [2, 2, 1]
    assert all(torch.equal(batch.images, images) for batch, images in zip(found, plain, strict=True))
    drawn = [train.images[k] for k in np.random.default_rng(3).permutation(7)[:5]]
    for number, image in enumerate(drawn):
        batch = found[number // 2]
        own = batch.image_index == number % 2
        if image.crowd.any():
            assert not own.any()
            continue
        assert batch.labels[own].tolist() == image.labels.tolist()
        centre, size = batch.boxes[own].split(2, 1)
        corners = torch.cat([centre - size / 2, centre + size / 2], 1) * 96
        torch.testing.assert_close(corners, torch.from_numpy(image.boxes), rtol=0, atol=1e-3)


def test_an_image_without_objects(tmp_path):
    train = load(DatasetConfig(generate_train=2, generate_val=1, generate_size=96), tmp_path, "train")
    empty = [dataclasses.replace(i, boxes=i.boxes[:0], labels=i.labels[:0], crowd=i.crowd[:0]) for i in train.images]
    (batch,) = calibration_batches(dataclasses.replace(train, images=tuple(empty)), 9, 64, 4, seed=0)
    assert batch.boxes.shape == (0, 4) and batch.labels.shape == (0,) and len(batch.images) == 2
