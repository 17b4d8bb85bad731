"""A batch that two processes share trains like the same batch in one: real processes, on the CPU, over gloo."""

import json
import multiprocessing
import time

import numpy as np
import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from PIL import Image

from dcodp.config import ModelConfig, TrainSettings
from dcodp.data.augment import TrainingBatches
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.detectors import Batch
from dcodp.detectors.registry import build
from dcodp.detectors.torchvision_common import freeze_batch_norms
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors
from dcodp.training import train
from dcodp.training.processes import _none_left_behind, make_fabric

SIZE, CLASSES = 96, ("lying", "standing")
PLAIN = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "flip": 0.0, "hsv": 0.0, "close_mosaic": 0}
SETTINGS = TrainSettings(epochs=2, batch=4, lr=1e-3, optimizer="sgd", warmup_epochs=0.0, **PLAIN)
# their means are over the boxes or places that each process finds: equal only for equal images
ALIKE = ("faster_rcnn", "fcos", "ssd")


def images(folder, alike):
    """Three objects in one half of the batch, one in the other: shares that weigh differently."""
    made = []
    for i, count in enumerate((3, 1, 2, 1)):
        pixels = np.full((SIZE, SIZE, 3), 30, np.uint8)
        boxes = [(8 + 24 * k, 10 + 6 * k, 26 + 24 * k, 70 - 9 * k) for k in range(2 if alike else count)]
        for x, y, right, bottom in boxes:
            pixels[y:bottom, x:right] = (200, 50 * (0 if alike else i), 150)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        no = np.zeros(len(boxes), bool)
        labels = np.arange(len(boxes)) % 2
        box = np.array(boxes, np.float32)
        made.append(LabelledImage(str(i), folder / f"{i}.png", SIZE, SIZE, box, labels, no, no))
    return DetectionSet("bars", "train", CLASSES, tuple(made))


def detector(family, variant):
    """With frozen batch norms, since each process has statistics of its own, and nothing sampled by chance."""
    torch.manual_seed(0)
    made, _ = build(ModelConfig(name=family, family=family, variant=variant), CLASSES)
    for module in made.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of one pass
    noise = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    made.network.train()
    made.loss(Batch(noise, torch.full((1, 4), 0.5), torch.zeros(1, dtype=torch.int64), torch.zeros(1)))
    freeze_batch_norms(made.network)
    if family == "faster_rcnn":
        made.network.rpn.fg_bg_sampler.batch_size_per_image = 10**6
        made.network.roi_heads.fg_bg_sampler.batch_size_per_image = 10**6
    return made


def trained(family, variant, data, folder, processes):
    batches = TrainingBatches(data, SIZE, SETTINGS, seed=0)
    train(detector(family, variant), batches, SETTINGS, folder, seed=0, devices=["cpu"] * processes, validate=None)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [{k: v for k, v in row.items() if k.startswith("loss")} for row in rows]
    return losses, load_tensors(folder / "best.safetensors")[0]


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("yolov8", "n"),
        ("yolov7", "tiny_test"),
        pytest.param("faster_rcnn", "tiny_test", marks=pytest.mark.slow),
        pytest.param("retinanet", "tiny_test", marks=pytest.mark.slow),
        pytest.param("fcos", "tiny_test", marks=pytest.mark.slow),
        pytest.param("ssd", "tiny_test", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_like_one(tmp_path, family, variant):
    data = images(tmp_path, alike=family in ALIKE)
    one, weights = trained(family, variant, data, tmp_path / "one", 1)
    two, others = trained(family, variant, data, tmp_path / "two", 2)
    assert len(one) == SETTINGS.epochs
    for single, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(single, rel=1e-4)
    moved = start_and_end(family, variant, weights)
    apart = max(float((weights[k].double() - others[k].double()).abs().max()) for k in moved)
    assert apart <= 1e-2 * max(moved.values())


def start_and_end(family, variant, weights):
    """How far each weight went in training: what a difference between two trainings is to be compared with."""
    start = detector(family, variant).network.state_dict()
    floating = {k: v for k, v in weights.items() if v.is_floating_point()}
    return {k: float((v.double() - start[k].double()).abs().max()) for k, v in floating.items()}


def test_what_a_process_refuses_is_one_line_here(tmp_path):
    data = images(tmp_path, alike=True)
    batches = TrainingBatches(data, SIZE, SETTINGS, seed=0)
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"0\.png") as refused:
        train(detector("yolov8", "n"), batches, SETTINGS, tmp_path / "run", seed=0, devices=["cpu"] * 2, validate=None)
    assert "\n" not in str(refused.value)


def test_a_slurm_job_has_no_say_in_the_processes(tmp_path, monkeypatch):
    for key, value in {"NTASKS": "1", "NTASKS_PER_NODE": "1", "JOB_NAME": "x", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    fabric = make_fabric([torch.device("cpu")] * 2, amp=False)
    assert not isinstance(fabric.strategy.cluster_environment, SLURMEnvironment)
    assert fabric.world_size == 2


def test_no_process_goes_on_when_this_one_is_interrupted():
    endless = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    with pytest.raises(KeyboardInterrupt), _none_left_behind():
        endless.start()
        raise KeyboardInterrupt
    assert not endless.is_alive()
