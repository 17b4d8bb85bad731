"""Evaluation of a made-up detector that reads its answers off the pixels, so that every number is known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dcodp.compose import cells, register
from dcodp.config import EvaluationConfig
from dcodp.data.splits import load
from dcodp.data.types import Detections, DetectionSet, LabelledImage
from dcodp.data.voc import CLASSES
from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.evaluation import accuracy, evaluate, fitness, load_predictions, predict, save_predictions, voc_statistics
from dcodp.evaluation.measuring import voc_rule

CONF = Path(__file__).resolve().parents[2] / "conf"
SETTINGS = EvaluationConfig(batch=2, latency_runs=2)
RECORD_KEYS = {"map50", "map50_95", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100", "ar_small",
               "ar_medium", "ar_large", "per_class", "parameters", "flops", "latency_ms", "latency", "images",
               "subset"}  # fmt: skip
# width, height, white box in pixels of the image
SCENES = {"wide": (96, 48, (16, 8, 56, 40)), "tall": (40, 80, (4, 12, 32, 60)), "square": (64, 64, (8, 16, 48, 56))}

register()


class BrightBox(Detector):
    """Finds the bounding box of everything bright, as class 1."""

    def __init__(self):
        super().__init__("bright", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), ("dark", "bright"))
        self.batches, self.modes = [], []

    def example_inputs(self, image_size, batch=1):
        return (torch.zeros(batch, 3, image_size, image_size),)

    def outputs(self, result):
        return result

    def training_outputs(self, batch):
        raise NotImplementedError

    def loss_from(self, outputs, batch):
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


def voc_set(kits=("VOC2007",), difficult=False, **changes):
    """One 50 × 40 pixel bicycle in an image of each kit, in VOC coordinates 11, 21, 60, 60."""
    box, flags = np.array([[10, 20, 60, 60]], np.float32), np.array([difficult])
    images = tuple(
        LabelledImage(kit, Path(kit, "JPEGImages", "1.jpg"), 100, 100, box, np.array([1]), flags, np.zeros(1, bool))
        for kit in kits
    )
    return DetectionSet(**{"name": "any", "split": "val", "classes": CLASSES, "images": images, **changes})


def half_of_the_object(kit="VOC2007"):
    """IoU exactly 0.5 where pixels are counted inclusively."""
    return {kit: (np.array([[10, 20, 35, 60]], np.float32), np.array([0.9], np.float32), np.array([1]))}


@pytest.mark.parametrize(
    ("kits", "rule"),
    [
        (["VOC2007"], "voc2007"),
        (["VOC2009"], "voc2007"),
        (["VOC2010"], "area"),
        (["VOC2012"], "area"),
        (["VOC2007", "VOC2012"], "area"),
    ],
)
def test_the_kit_that_is_tested_decides_the_voc_rule(kits, rule):
    assert voc_rule(voc_set(kits)) == rule


@pytest.mark.parametrize("name", ["voc2007", "voc2012", "voc0712", "vocational"])
def test_a_set_of_ones_own_is_not_scored_by_voc_rules_whatever_its_name(name):
    assert "voc_ap" not in accuracy(voc_set(["photos"], name=name), half_of_the_object("photos"), SETTINGS)
    assert voc_rule(voc_set(name=name, classes=("a", "b"))) is None
    assert voc_rule(voc_set(name=name, category_ids=tuple(range(20)))) is None  # read from a COCO JSON file
    assert voc_rule(voc_set(["VOC2007", "photos"], name=name)) is None
    assert voc_rule(voc_set([], name=name)) is None


def test_the_union_of_both_years_is_tested_by_the_rule_of_2007(tmp_path):
    """Through the configuration and the reader, as a run does it."""
    ((_, config),) = cells(CONF, ["dataset=voc0712"])
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    Image.new("RGB", (60, 60)).save(folder / "JPEGImages" / "000001.jpg")
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    size = "<size><width>60</width><height>60</height></size>"
    written = f"<annotation>{size}<object><name>bicycle</name>{box}</object></annotation>"
    (folder / "Annotations" / "000001.xml").write_text(written)
    tested = load(config.dataset, tmp_path, "val")
    block = accuracy(tested, half_of_the_object("000001"), SETTINGS)
    assert block["voc_ap"]["rule"] == "voc2007" and block["voc_ap"]["map"] == pytest.approx(1.0)
    assert block["subset"]


@pytest.mark.parametrize(("kit", "rule"), [("VOC2007", "voc2007"), ("VOC2012", "area")])
def test_images_of_voc_are_also_scored_by_voc_rules(kit, rule):
    block = accuracy(voc_set([kit]), half_of_the_object(kit), SETTINGS)
    per_class = dict.fromkeys(CLASSES) | {"bicycle": pytest.approx(1.0)}
    assert block["voc_ap"] == {"rule": rule, "map": pytest.approx(1.0), "per_class": per_class}


def test_the_two_rules_differ_where_recall_ends_early():
    """One of two bicycles found, at full precision up to recall 0.5: six of eleven levels, or half the area."""
    tested = voc_set()
    both = np.concatenate([tested.images[0].boxes, tested.images[0].boxes + 30])
    flags, labels = np.zeros(2, bool), np.array([1, 1])
    image = dataclasses.replace(tested.images[0], boxes=both, labels=labels, difficult=flags, crowd=flags)
    found = {rule: voc_statistics(voc_set(images=(image,)), half_of_the_object(), rule) for rule in ("voc2007", "area")}
    assert found["voc2007"]["map"] == pytest.approx(6 / 11) and found["area"]["map"] == pytest.approx(0.5)


def test_voc_statistics_without_detections_or_objects():
    nothing = voc_statistics(voc_set(), {})
    assert (nothing["rule"], nothing["map"]) == ("voc2007", 0.0)
    assert nothing["per_class"] == dict.fromkeys(CLASSES) | {"bicycle": 0.0}
    assert voc_statistics(voc_set(difficult=True), half_of_the_object())["map"] is None
