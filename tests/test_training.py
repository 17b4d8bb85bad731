import dataclasses
import errno
import io
import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from dcodp import _ultralytics
from dcodp.config import TrainSettings
from dcodp.data.augment import TrainingBatches
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.detectors.families.yolov8 import YOLOv8
from dcodp.errors import InputError
from dcodp.training import load_best, train
from dcodp.training.display import Display
from dcodp.training.files import load_last
from dcodp.training.optimise import AveragedWeights, average_decay, learning_rate, newness, parameter_groups

SIZE = 64
SETTINGS = TrainSettings(
    epochs=3, batch=2, lr=2e-3, warmup_epochs=1.0, ema_ramp=2.0, mosaic=0.5, close_mosaic=1, eval_every=1
)


@pytest.fixture(scope="module")
def detection_set(tmp_path_factory) -> DetectionSet:
    """Four images: one bright rectangle each on a dark ground; its class says whether it lies or stands."""
    folder, images = tmp_path_factory.mktemp("images"), []
    for i, (x, y, w, h) in enumerate([(4, 8, 40, 20), (20, 10, 18, 44), (10, 30, 44, 24), (36, 4, 20, 40)]):
        pixels = np.full((SIZE, SIZE, 3), 30, np.uint8)
        pixels[y : y + h, x : x + w] = (200, 60 * i, 255 - 60 * i)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        box, no = np.array([[x, y, x + w, y + h]], np.float32), np.zeros(1, bool)
        images.append(LabelledImage(str(i), folder / f"{i}.png", SIZE, SIZE, box, np.array([i % 2]), no, no))
    return DetectionSet("bars", "train", ("lying", "standing"), tuple(images))


def narrow(width: float = 0.0625) -> YOLOv8:
    """YOLOv8n's graph at a quarter of its width."""
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(0)
    architecture = yaml_model_load("yolov8n.yaml")
    architecture["scales"]["n"] = [0.33, width, 1024]
    return YOLOv8("narrow", DetectionModel(architecture, nc=2, verbose=False), ("lying", "standing"))


def run(detector, detection_set, folder, settings=SETTINGS, **options):
    batches = TrainingBatches(detection_set, SIZE, settings, seed=1)
    train(detector, batches, settings, folder, **{"seed": 1, "devices": ["cpu"], "validate": None, **options})


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_overfits_four_images(detection_set, tmp_path):
    plain = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "flip": 0.0, "hsv": 0.0}
    settings = dataclasses.replace(SETTINGS, epochs=20, batch=4, lr=5e-3, schedule="constant", **plain)
    run(narrow(), detection_set, tmp_path, settings)
    losses = [line["loss"] for line in lines(tmp_path)]
    assert losses[-1] < 0.6 * losses[0]
    assert set(lines(tmp_path)[0]) == {"epoch", "loss", "loss_box", "loss_cls", "loss_dfl", "lr", "seconds"}


class Stop(Exception):
    pass


def test_resume_equals_an_undisturbed_run_bit_for_bit(detection_set, tmp_path):
    def fitness(detector):
        torch.rand(3)  # a validation that draws random numbers
        return {"map50_95": float(next(detector.network.parameters()).abs().mean())}

    def stop(row):
        if row["epoch"] == 1:
            raise Stop

    run(narrow(), detection_set, tmp_path / "whole", validate=fitness)
    with pytest.raises(Stop):
        run(narrow(), detection_set, tmp_path / "broken", validate=fitness, on_epoch=stop)
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "loss": -1}\n')  # killed after the line, before the checkpoint
    torch.manual_seed(77)
    run(narrow(), detection_set, tmp_path / "broken", validate=fitness)

    whole, broken = (load_last(tmp_path / name) for name in ("whole", "broken"))
    for kind in ("network", "average"):
        assert all(torch.equal(whole[kind][k], broken[kind][k]) for k in whole[kind])
    state = [checkpoint["optimizer"]["state"] for checkpoint in (whole, broken)]
    assert all(torch.equal(state[0][i]["exp_avg_sq"], state[1][i]["exp_avg_sq"]) for i in state[0])
    assert torch.equal(whole["random"]["torch"], broken["random"]["torch"])
    assert whole["best"] == broken["best"]
    best = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "broken")]
    assert all(torch.equal(best[0][k], best[1][k]) for k in best[0])
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "broken"), strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_global_generators_are_left_as_they_were(detection_set, tmp_path):
    detector = narrow()
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    run(detector, detection_set, tmp_path, dataclasses.replace(SETTINGS, epochs=1))
    assert torch.equal(torch.rand(4), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def prune_by_hand(detector: YOLOv8) -> None:
    """Removes 4 hidden channels between the first two convolutions of the box branch of stride 8."""
    branch = detector.network.model[-1].cv2[0]
    first, second = branch[0], branch[1]
    keep = first.conv.out_channels - 4
    first.conv.weight = nn.Parameter(first.conv.weight[:keep].detach().clone())
    for name in ("weight", "bias"):
        setattr(first.bn, name, nn.Parameter(getattr(first.bn, name)[:keep].detach().clone()))
    for name in ("running_mean", "running_var"):
        setattr(first.bn, name, getattr(first.bn, name)[:keep].clone())
    second.conv.weight = nn.Parameter(second.conv.weight[:, :keep].detach().clone())


def test_pruned_shapes_survive_training_checkpoint_and_resume(detection_set, tmp_path):
    def stop(_):
        raise Stop

    detector = narrow()
    prune_by_hand(detector)
    shapes = {k: v.shape for k, v in detector.network.state_dict().items()}
    settings = dataclasses.replace(SETTINGS, epochs=2)
    with pytest.raises(Stop):
        run(detector, detection_set, tmp_path, settings, on_epoch=stop)
    run(detector, detection_set, tmp_path, settings)
    load_best(detector, tmp_path)
    assert {k: v.shape for k, v in detector.network.state_dict().items()} == shapes
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2]
    with pytest.raises(InputError, match=r"another architecture: model\.22\.cv2\.0\.0\.conv\.weight has shape"):
        load_best(narrow(), tmp_path)


def test_checkpoint_of_other_shapes_or_settings_is_refused(detection_set, tmp_path):
    def stop(_):
        raise Stop

    with pytest.raises(Stop):
        run(narrow(), detection_set, tmp_path, on_epoch=stop)
    pruned = narrow()
    prune_by_hand(pruned)
    with pytest.raises(InputError, match=r"last\.ckpt is of another architecture: .*has shape"):
        run(pruned, detection_set, tmp_path)
    with pytest.raises(InputError, match="written with epochs=3, now epochs=4"):
        run(narrow(), detection_set, tmp_path, dataclasses.replace(SETTINGS, epochs=4))
    (tmp_path / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read"):
        run(narrow(), detection_set, tmp_path)


def test_best_epoch_is_kept_and_of_equals_the_later(detection_set, tmp_path):
    scores, seen = iter([0.2, 0.5, 0.5, 0.1]), []

    def validate(detector):
        assert not detector.network.training
        seen.append({k: v.clone() for k, v in detector.network.state_dict().items()})
        return {"map50_95": next(scores), "map50": 1.0}

    detector = narrow()
    run(detector, detection_set, tmp_path, dataclasses.replace(SETTINGS, epochs=4), validate=validate)
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["epochs"] == 4 and done["best"] == {"epoch": 3, "map50_95": 0.5} and done["seconds"] > 0
    load_best(detector, tmp_path)
    assert all(torch.equal(v, seen[2][k]) for k, v in detector.network.state_dict().items())
    assert [line["map50"] for line in lines(tmp_path)] == [1.0] * 4


def test_validates_every_nth_epoch_and_the_last(detection_set, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=3, eval_every=2)
    run(narrow(), detection_set, tmp_path, settings, validate=lambda _: {"map50_95": None})
    assert ["map50_95" in line for line in lines(tmp_path)] == [False, True, True]


def test_no_epochs_keeps_the_given_weights_and_done_returns_at_once(detection_set, tmp_path):
    detector = narrow()
    before = {k: v.clone() for k, v in detector.network.state_dict().items()}
    run(detector, detection_set, tmp_path, dataclasses.replace(SETTINGS, epochs=0))
    assert all(torch.equal(v, before[k]) for k, v in load_file(tmp_path / "best.safetensors").items())
    assert json.loads((tmp_path / "done.json").read_text())["epochs"] == 0
    stamp = (tmp_path / "best.safetensors").stat().st_mtime_ns
    run(detector, detection_set, tmp_path)  # three epochs asked for, but the folder says done
    assert (tmp_path / "best.safetensors").stat().st_mtime_ns == stamp and not (tmp_path / "last.ckpt").exists()


def test_full_disk_is_one_line_and_keeps_the_last_checkpoint(detection_set, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_disk(row):
        checkpoint.append((tmp_path / "last.ckpt").read_bytes())
        save = torch.save
        monkeypatch.setattr(torch, "save", lambda *args: (save(*args), full(None)))

    checkpoint = []
    with pytest.raises(InputError, match=r"disk is full: .*last\.ckpt"):
        run(narrow(), detection_set, tmp_path, on_epoch=fill_disk)
    assert (tmp_path / "last.ckpt").read_bytes() == checkpoint[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "metrics.jsonl"]


def test_a_loss_that_is_not_finite_stops_the_training(detection_set, tmp_path):
    with pytest.raises(InputError, match=r"the loss is not finite in epoch 1 .*lower the learning rate \(lr=0\.002\)"):
        run(narrow(), detection_set, tmp_path, terms={"extra": lambda *_: torch.tensor(math.nan)})
    assert not (tmp_path / "last.ckpt").exists()


def test_extra_loss_reaches_the_gradient_and_the_metrics(detection_set, tmp_path):
    def scales(network: nn.Module) -> torch.Tensor:
        return sum(m.weight.abs().sum() for m in network.modules() if isinstance(m, nn.BatchNorm2d))

    settings = dataclasses.replace(SETTINGS, epochs=1)
    plain, slim = narrow(), narrow()
    run(plain, detection_set, tmp_path / "plain", settings)
    run(
        slim,
        detection_set,
        tmp_path / "slim",
        settings,
        terms={"scales": lambda network, batch, outputs: 10 * scales(network)},
    )
    assert scales(slim.network) < scales(plain.network)
    assert lines(tmp_path / "slim")[0]["loss_scales"] > 0


def test_one_log_line_per_epoch_without_a_terminal_and_a_bar_with_one(monkeypatch, caplog):
    row = {"epoch": 2, "loss": 1.25, "map50_95": 0.5, "seconds": 3.0}
    with caplog.at_level("INFO"), Display("net", 4, 10, 1) as shown:
        shown.step(), shown.epoch(row)
    assert caplog.messages == ["training net: epoch 2/4, loss 1.250, map50_95 0.500, 3.0 s"]
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr("dcodp.training.display.Console", lambda **_: terminal)
    with caplog.at_level("INFO"), Display("net", 4, 10, 1) as shown:
        shown.step(), shown.epoch({**row, "map50_95": None})
        assert shown.bar.tasks[0].completed == 11 and shown.bar.tasks[0].total == 40
    assert len(caplog.messages) == 1 and "epoch 2/4, loss 1.250" in terminal.file.getvalue()


def test_learning_rate_rises_linearly_then_follows_the_cosine():
    settings = TrainSettings(epochs=10, lr=1.0, lr_final=0.1, warmup_epochs=2)
    rates = [learning_rate(step, 5, settings) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert learning_rate(10 + 13, 5, settings) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 13 / 39)) / 2)
    constant = dataclasses.replace(settings, schedule="constant")
    assert {learning_rate(step, 5, constant) for step in range(10, 50)} == {1.0}
    short = dataclasses.replace(settings, epochs=1, warmup_epochs=3)  # the warm-up takes half of it at most
    assert learning_rate(1, 4, short) == 1.0 and learning_rate(3, 4, short) == pytest.approx(0.1)


def test_average_follows_its_recurrence():
    settings = TrainSettings(ema_decay=0.9, ema_ramp=10.0)
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    nn.init.zeros_(network[0].weight)
    average, expected = AveragedWeights(network, settings), 0.0
    for update in (1, 2, 3):
        network[0].weight.data.fill_(float(update))
        network[1].num_batches_tracked.fill_(update)
        average.update(update)
        decay = 0.9 * (1 - math.exp(-update / 10))
        assert average_decay(update, settings) == pytest.approx(decay)
        expected = decay * expected + (1 - decay) * update
    assert average.network[0].weight.flatten().tolist() == pytest.approx([expected] * 4)
    assert int(average.network[1].num_batches_tracked) == 3 and not average.network.training


def test_only_weights_of_layers_decay():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network[2].weight.requires_grad_(False)
    decayed, plain = parameter_groups(network, 0.01)
    assert decayed["weight_decay"] == 0.01 and [p.shape for p in decayed["params"]] == [(4, 3, 1, 1)]
    assert plain["weight_decay"] == 0.0 and len(plain["params"]) == 4


def test_new_classes_raise_the_learning_rate_until_they_are_learnt(detection_set, tmp_path):
    settings = dataclasses.replace(SETTINGS, epochs=1, warmup_epochs=0.0, schedule="constant", fresh_lr=4.0)
    assert [newness(share, settings) for share in (0.0, 0.5, 1.0)] == [1.0, 2.0, 4.0]
    detector = narrow()
    detector.fresh = 0.5
    run(detector, detection_set, tmp_path, settings)
    assert lines(tmp_path)[0]["lr"] == pytest.approx(2 * settings.lr)
    load_best(detector, tmp_path)
    assert detector.fresh == 0.0
