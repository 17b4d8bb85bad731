"""Evaluation of a made-up detector that reads its answers off the pixels, so that every number is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcodp.config import EvaluationConfig
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.detectors.base import Detections, Detector
from dcodp.errors import InputError
from dcodp.evaluation import accuracy, evaluate, fitness, load_predictions, predict, save_predictions, voc_statistics

SETTINGS = EvaluationConfig(batch=2, latency_runs=2)
RECORD_KEYS = {"map50", "map50_95", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small",
               "ar_medium", "ar_large", "per_class", "parameters", "flops", "latency_ms", "latency", "images",
               "subset"}  # fmt: skip
# width, height, white box in pixels of the image
SCENES = {"wide": (96, 48, (16, 8, 56, 40)), "tall": (40, 80, (4, 12, 32, 60)), "square": (64, 64, (8, 16, 48, 56))}


class BrightBox(Detector):
    """Finds the bounding box of everything bright, as class 1."""

    def __init__(self):
        super().__init__("bright", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), ("dark", "bright"))
        self.batches, self.modes = [], []

    def example_inputs(self, image_size, batch=1):
        return (torch.zeros(batch, 3, image_size, image_size),)

    def outputs(self, result):
        return result

    def loss(self, batch):
        raise NotImplementedError

    def predict(self, images, settings):
        self.batches.append(len(images))
        self.modes.append(self.network.training)
        return [self.bright(image) for image in images]

    def bright(self, image):
        y, x = (image.float().mean(0) > 200).nonzero(as_tuple=True)
        if not len(x):
            return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
        box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        return Detections(box[None], torch.tensor([0.9]), torch.tensor([1]))


@pytest.fixture
def scenes(tmp_path):
    return DetectionSet("made", "val", ("dark", "bright"), tuple(scene(tmp_path, name) for name in SCENES), 10)


def scene(folder, name):
    width, height, (x1, y1, x2, y2) = SCENES[name]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(folder / f"{name}.png")
    no = np.zeros(1, bool)
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return LabelledImage(name, folder / f"{name}.png", width, height, box, np.array([1]), no, no)


def test_predictions_are_in_pixels_of_the_original_image(scenes):
    detector, progress = BrightBox(), []
    predictions = predict(detector, scenes, 96, SETTINGS, lambda *done: progress.append(done))
    for image in scenes.images:
        boxes, scores, labels = predictions[image.id]
        np.testing.assert_allclose(boxes, image.boxes, atol=1.5)
        assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
        assert labels.tolist() == [1]
    assert detector.batches == [2, 1]
    assert progress == [(2, 3), (3, 3)]


def test_prediction_runs_in_eval_mode_and_leaves_the_mode(scenes):
    detector = BrightBox()
    detector.network[1].eval()
    predict(detector, scenes, 64, SETTINGS)
    assert detector.modes == [False, False]
    assert detector.network.training and not detector.network[1].training


def test_the_block_of_a_record(scenes):
    block = evaluate(BrightBox(), scenes, 96, SETTINGS)
    assert set(block) == RECORD_KEYS
    assert json.loads(json.dumps(block)) == block
    assert block["map50"] == pytest.approx(1.0)
    assert block["per_class"]["dark"]["map50"] is None
    assert (block["images"], block["subset"]) == (3, True)
    assert block["parameters"] == 3 * 4 * 9 + 4 + 8
    assert block["flops"] == 2 * 94 * 94 * 4 * 27
    assert block["latency"]["runs"] == 2
    assert block["latency_ms"] == block["latency"]["median_ms"] > 0


def test_fitness_is_the_accuracy_alone(scenes):
    statistics = fitness(BrightBox(), scenes, 96, SETTINGS)
    assert set(statistics) == RECORD_KEYS - {"parameters", "flops", "latency_ms", "latency", "images", "subset"}
    reference = accuracy(scenes, predict(BrightBox(), scenes, 96, SETTINGS), SETTINGS)
    assert statistics["map50_95"] == pytest.approx(reference["map50_95"])


def test_saved_predictions_give_the_same_numbers_without_the_net(scenes, tmp_path):
    predictions = predict(BrightBox(), scenes, 96, SETTINGS)
    predictions["tall"] = tuple(part[:0] for part in predictions["tall"])
    save_predictions(tmp_path / "predictions.npz", predictions)
    loaded = load_predictions(tmp_path / "predictions.npz")
    assert list(loaded) == list(predictions)
    for name, parts in predictions.items():
        for before, after in zip(parts, loaded[name], strict=True):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
    assert accuracy(scenes, loaded, SETTINGS) == accuracy(scenes, predictions, SETTINGS)
    assert [path.name for path in tmp_path.glob("predictions*")] == ["predictions.npz"]


def test_no_predictions_survive_saving(tmp_path):
    save_predictions(tmp_path / "none.npz", {})
    assert load_predictions(tmp_path / "none.npz") == {}


def test_files_that_hold_no_predictions_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npz does not exist"):
        load_predictions(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    np.savez(tmp_path / "objects.npz", ids=np.array([{}], dtype=object))
    for name in ("text", "other", "objects"):
        with pytest.raises(InputError, match=rf"{name}\.npz does not hold predictions"):
            load_predictions(tmp_path / f"{name}.npz")


def voc_set(name, difficult=False):
    """One 50 × 40 pixel object, in VOC coordinates 11, 21, 60, 60; class "b" has no object."""
    box = np.array([[10, 20, 60, 60]], np.float32)
    image = LabelledImage("1", None, 100, 100, box, np.array([0]), np.array([difficult]), np.zeros(1, bool))  # type: ignore[arg-type]
    return DetectionSet(name, "val", ("a", "b"), (image,))


def half_of_the_object():
    """IoU exactly 0.5 where pixels are counted inclusively."""
    return {"1": (np.array([[10, 20, 35, 60]], np.float32), np.array([0.9], np.float32), np.array([0]))}


@pytest.mark.parametrize(("name", "rule"), [("voc2007", "voc2007"), ("voc2012", "area")])
def test_voc_data_sets_are_also_scored_by_voc_rules(name, rule):
    block = accuracy(voc_set(name), half_of_the_object(), SETTINGS)
    assert block["voc_ap"] == {
        "rule": rule,
        "map": pytest.approx(1.0),
        "per_class": {"a": pytest.approx(1.0), "b": None},
    }


def test_voc_statistics_without_detections_or_objects():
    assert voc_statistics(voc_set("voc2007"), {}) == {
        "rule": "voc2007",
        "map": 0.0,
        "per_class": {"a": 0.0, "b": None},
    }
    assert voc_statistics(voc_set("voc2007", difficult=True), half_of_the_object())["map"] is None
