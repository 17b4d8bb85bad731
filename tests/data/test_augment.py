import dataclasses
import random

import numpy as np
import pytest
import torch
from PIL import Image

from dcodp.config import TrainSettings
from dcodp.data import augment
from dcodp.data.augment import TrainingBatches
from dcodp.data.images import letterbox, read_image
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError

SIZE = 64
PLAIN = TrainSettings(epochs=5, batch=4, mosaic=0.0, close_mosaic=0, scale=0.0, translate=0.0, flip=0.0, hsv=0.0)
STRONG = TrainSettings(epochs=5, batch=4, close_mosaic=2)


def labelled(path, width, height, boxes, labels, crowd=None) -> LabelledImage:
    boxes, no = np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(labels), bool)
    crowd = no if crowd is None else np.array(crowd)
    return LabelledImage(path.stem, path, width, height, boxes, np.array(labels, np.int64), no, crowd)


@pytest.fixture
def detection_set(tmp_path) -> DetectionSet:
    """Ten images of different shapes; a coloured rectangle fills the only box."""
    images, rng = [], np.random.default_rng(0)
    for i in range(10):
        width, height = 60 + 8 * i, 120 - 5 * i
        x, y = rng.integers(2, 12, 2).tolist()
        x2, y2 = width - 8, height - 10
        pixels = np.full((height, width, 3), 40, np.uint8)
        pixels[y:y2, x:x2] = (250, 20 * i, 10)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        images.append(labelled(tmp_path / f"{i}.png", width, height, [[x, y, x2, y2]], [i]))
    return DetectionSet("bars", "train", tuple("abcdefghij"), tuple(images))


def epoch(detection_set, settings, number=0, seed=3, **where):
    return list(TrainingBatches(detection_set, SIZE, settings, seed).epoch(number, **where))


def equal(ones, others):
    return len(ones) == len(others) and all(
        all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
        for one, other in zip(ones, others, strict=True)
    )


def test_batch_has_the_declared_types_and_every_image_once(detection_set):
    batches = epoch(detection_set, PLAIN)
    assert len(batches) == len(TrainingBatches(detection_set, SIZE, PLAIN, 0)) == 3
    assert sorted(len(b.images) for b in batches) == [3, 3, 4]
    assert sorted(torch.cat([b.labels for b in batches]).tolist()) == list(range(10))
    for b in batches:
        assert (b.images.dtype, b.boxes.dtype, b.labels.dtype) == (torch.uint8, torch.float32, torch.int64)
        assert b.images.shape[1:] == (3, SIZE, SIZE) and b.images.is_contiguous()
        assert b.image_index.tolist() == list(range(len(b.images)))


def test_without_augmentation_it_is_the_letterbox_of_the_evaluation(detection_set):
    for batch in epoch(detection_set, PLAIN):
        for pixels, box, label in zip(batch.images, batch.boxes, batch.labels, strict=True):
            image = detection_set.images[int(label)]
            square, place = letterbox(read_image(image.path), SIZE)
            difference = np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - square)
            assert np.mean(difference > 8) < 0.12  # where the padding is odd the warp shifts by half a pixel
            x1, y1, x2, y2 = place.to_square(image.boxes)[0] / SIZE
            expected = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            assert box.tolist() == pytest.approx(expected, abs=0.6 / SIZE)


def test_boxes_follow_the_pixels_through_mosaic_scale_and_flip(detection_set):
    for batch in epoch(detection_set, dataclasses.replace(STRONG, hsv=0.0)):
        red, unexplained = batch.images[:, 0] > 120, batch.images[:, 0] > 120
        centre, size = batch.boxes.split(2, dim=1)
        corners = torch.cat([centre - size / 2, centre + size / 2], 1)
        for (x, y, x2, y2), k in zip((corners * SIZE).round().int().tolist(), batch.image_index.tolist(), strict=True):
            inner = red[k, y + 1 : y2 - 1, x + 1 : x2 - 1]
            assert inner.numel() == 0 or inner.float().mean() > 0.97
            unexplained[k, max(y - 1, 0) : y2 + 1, max(x - 1, 0) : x2 + 1] = False
        assert unexplained.float().mean() < 0.03  # slivers: under a tenth of an object is no object any more
        assert (batch.boxes[:, 2:] > 0).all() and (corners > -1e-6).all() and (corners < 1 + 1e-6).all()


def test_an_epoch_depends_on_seed_and_number_only(detection_set):
    batches = TrainingBatches(detection_set, SIZE, STRONG, seed=3)
    first, second = list(batches.epoch(0)), list(batches.epoch(1))
    random.seed(99), np.random.seed(99)
    assert equal(second, epoch(detection_set, STRONG, 1))  # without epoch 0 before it, other global state
    assert not equal(first, second) and not equal(first, epoch(detection_set, STRONG, seed=4))


def test_global_generators_are_left_alone(detection_set):
    def draws():
        return random.random(), np.random.random(), float(torch.rand(()))

    def seed():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    seed()
    expected = draws()
    seed()
    epoch(detection_set, STRONG), epoch(detection_set, dataclasses.replace(STRONG, workers=1))
    assert draws() == expected


def test_worker_processes_make_the_same_batches(detection_set):
    with_workers = dataclasses.replace(STRONG, workers=2)
    assert equal(epoch(detection_set, STRONG), epoch(detection_set, with_workers))


def test_images_that_do_not_fit_into_memory_make_the_same_batches(detection_set, monkeypatch):
    expected = epoch(detection_set, STRONG)
    monkeypatch.setattr(augment, "CACHE_BYTES", 1000)
    batches = TrainingBatches(detection_set, SIZE, STRONG, 3)
    assert equal(list(batches.epoch(0)), expected) and batches._source.pixels is None


def test_devices_share_each_batch(detection_set):
    whole = epoch(detection_set, STRONG)
    shares = [epoch(detection_set, STRONG, rank=rank, devices=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch.images[0::2], first.images) and torch.equal(batch.images[1::2], second.images)
    with pytest.raises(InputError, match="too small for 4 devices"):
        epoch(detection_set, STRONG, devices=4)


def test_last_epochs_are_without_mosaic(detection_set):
    settings = dataclasses.replace(PLAIN, mosaic=1.0, close_mosaic=2)
    batches = TrainingBatches(detection_set, SIZE, settings, 0)
    boxes = [sum(len(b.labels) for b in batches.epoch(number)) for number in range(5)]
    assert min(boxes[:3]) > 10 and boxes[3:] == [10, 10]


def test_crowds_and_boxes_without_area_are_left_out(detection_set):
    first = detection_set.images[0]
    boxes = [[5, 5, 40, 40], [5, 5, 40, 40], [20, 20, 20, 40], [-30, 10, -5, 40], [30, 30, 500, 500]]
    image = labelled(first.path, 60, 120, boxes, [0, 1, 2, 3, 4], crowd=[False, True, False, False, False])
    (batch,) = epoch(dataclasses.replace(detection_set, images=(image,)), PLAIN)
    assert batch.labels.tolist() == [0, 4]
    assert batch.boxes[1].tolist() == [0.625, 0.625, 0.25, 0.75]  # cut at the image, not at the padding


def test_images_without_objects_are_trained_on(detection_set):
    empty = labelled(detection_set.images[0].path, 60, 120, [], [])
    (batch,) = epoch(dataclasses.replace(detection_set, images=(empty,)), STRONG)
    assert batch.boxes.shape == (0, 4) and batch.labels.shape == (0,) and batch.image_index.shape == (0,)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_named_in_one_line(detection_set, monkeypatch, cache_bytes, workers):
    monkeypatch.setattr(augment, "CACHE_BYTES", cache_bytes)
    detection_set.images[4].path.write_bytes(b"GIF89a nonsense")
    with pytest.raises(InputError, match=r"4\.png is not a readable image") as error:
        epoch(detection_set, dataclasses.replace(STRONG, workers=workers))
    assert "\n" not in str(error.value)


def test_no_images_is_refused(detection_set):
    with pytest.raises(InputError, match="bars train has no images"):
        TrainingBatches(dataclasses.replace(detection_set, images=()), SIZE, PLAIN, 0)


def test_nothing_is_written_beside_the_images(detection_set):
    folder = detection_set.images[0].path.parent
    before = sorted(folder.iterdir())
    epoch(detection_set, STRONG)
    assert sorted(folder.iterdir()) == before
