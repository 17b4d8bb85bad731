"""The one training loop with every detector: pruned shapes, averaged weights and resume, for all families alike."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import dcodp
from dcodp.config import ModelConfig, TrainSettings
from dcodp.data.augment import TrainingBatches
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.detectors import DecodeSettings
from dcodp.detectors.registry import build
from dcodp.files.tensors import load_tensors
from dcodp.training import load_best, train

SIZE = 96
CLASSES = ("lying", "standing")
FAMILIES = [("yolov8", "n"), ("yolov7", "tiny_test"), ("faster_rcnn", "tiny_test"), ("retinanet", "tiny_test"),
            ("fcos", "tiny_test"), ("ssd", "tiny_test")]  # fmt: skip
SETTINGS = TrainSettings(epochs=2, batch=2, lr=1e-3, warmup_epochs=0.0, mosaic=0.5, close_mosaic=1)


@pytest.fixture(scope="module")
def detection_set(tmp_path_factory):
    folder, images = tmp_path_factory.mktemp("images"), []
    for i, (x, y, w, h) in enumerate([(4, 8, 60, 20), (20, 10, 18, 64), (10, 30, 64, 24), (36, 4, 20, 60)]):
        pixels = np.full((SIZE, SIZE, 3), 30, np.uint8)
        pixels[y : y + h, x : x + w] = (200, 60 * i, 255 - 60 * i)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        box, no = np.array([[x, y, x + w, y + h]], np.float32), np.zeros(1, bool)
        images.append(LabelledImage(str(i), folder / f"{i}.png", SIZE, SIZE, box, np.array([i % 2]), no, no))
    return DetectionSet("bars", "train", CLASSES, tuple(images))


def pruned(family, variant):
    torch.manual_seed(0)
    detector, _ = build(ModelConfig(name=family, family=family, variant=variant), CLASSES)
    graph = detector.coupling_graph(SIZE)
    scores = {g.name: torch.rand(g.channels) for g in graph.groups}
    plan = dcodp.select(graph, scores, ratio=0.5)
    return detector, detector.with_network(dcodp.prune(detector.network, plan)), plan


class Stop(Exception):
    pass


def stop(_):
    raise Stop


@pytest.mark.parametrize(("family", "variant"), FAMILIES)
def test_pruned_shapes_survive_training_resume_and_reload(detection_set, tmp_path, family, variant):
    dense, small, plan = pruned(family, variant)
    shapes = {k: v.shape for k, v in small.network.state_dict().items()}
    before = {k: v.clone() for k, v in small.network.state_dict().items()}
    batches = TrainingBatches(detection_set, SIZE, SETTINGS, seed=0)
    options = {"seed": 0, "devices": ["cpu"], "validate": None}
    with pytest.raises(Stop):
        train(small, batches, SETTINGS, tmp_path, on_epoch=stop, **options)
    train(small, batches, SETTINGS, tmp_path, **options)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows] == [1, 2] and all(np.isfinite(r["loss"]) for r in rows)
    load_best(small, tmp_path)
    after = small.network.state_dict()
    assert {k: v.shape for k, v in after.items()} == shapes
    assert any(not torch.equal(v, before[k]) for k, v in after.items())
    assert {k: v.shape for k, v in load_tensors(tmp_path / "best.safetensors")[0].items()} == shapes
    dcodp.save(small.network, plan, tmp_path / "small.safetensors")
    loaded = small.with_network(dcodp.load(dense.network, tmp_path / "small.safetensors").eval())
    images = torch.randint(0, 255, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    small.network.eval()
    for one, other in zip(*(d.predict(images, DecodeSettings()) for d in (small, loaded)), strict=True):
        assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)
