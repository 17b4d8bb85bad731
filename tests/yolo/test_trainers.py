"""A pruned net in ultralytics' own hands: it predicts, is refused by the stock trainer, and stays pruned in ours."""

import copy

import made
import pytest
import torch

from dcodp import _ultralytics
from dcodp.detectors.ultralytics.opening import open_checkpoint
from dcodp.yolo.images import place_font

SHORT = {"epochs": 1, "imgsz": 64, "batch": 8, "plots": False, "workers": 0, "device": "cpu", "verbose": False,
         "exist_ok": True, "optimizer": "AdamW", "lr0": 1e-3}  # fmt: skip


def yolo(path):
    _ultralytics.prepare()
    place_font()
    from ultralytics import YOLO

    return YOLO(str(path))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made.data(tmp_path_factory.mktemp("data"), "detect")


def test_predicts_with_its_names(small):
    (found,) = yolo(small).predict(torch.rand(1, 3, 64, 64), verbose=False, device="cpu")
    assert found.names == made.NAMES


def test_the_stock_trainer_refuses_it_with_the_line_to_type(small, data, tmp_path):
    with pytest.raises(KeyError, match=r"this net is pruned.*trainer=PrunedTrainer"):
        yolo(small).train(data=str(data), project=str(tmp_path), **SHORT)


def test_our_trainer_keeps_it_pruned(small, data, tmp_path):
    from dcodp.yolo import PrunedTrainer

    net = yolo(small)
    before = parameters(net.model)
    net.train(trainer=PrunedTrainer, data=str(data), project=str(tmp_path), name="a", **SHORT)
    best = tmp_path / "a" / "weights" / "best.pt"
    opened = open_checkpoint(best)
    assert parameters(opened.network) == before == parameters(yolo(best).model)
    assert opened.plan == open_checkpoint(small).plan
    with pytest.raises(KeyError, match="this net is pruned"):
        yolo(best).train(data=str(data), project=str(tmp_path), **SHORT)


def test_a_dense_net_or_other_classes_are_said(small, data, tmp_path):
    from dcodp.errors import InputError
    from dcodp.yolo import PrunedTrainer

    with pytest.raises(InputError, match="no checkpoint"):
        PrunedTrainer(overrides={"model": "yolov8n.yaml", "task": "detect"})
    three = tmp_path / "three.yaml"
    three.write_text(data.read_text().replace("1: blue", "1: blue, 2: green") + f"path: {data.parent}\n")
    with pytest.raises(InputError, match="knows 2 classes, the data have 3"):
        yolo(small).train(trainer=PrunedTrainer, data=str(three), project=str(tmp_path), **SHORT)


def test_a_full_disk_keeps_the_checkpoint_of_the_epoch_before(small, data, tmp_path, monkeypatch):
    """Through `dcodp prune`'s own training, whose line names the checkpoint."""
    from dcodp.detectors.checkpoint import read_checkpoint
    from dcodp.errors import InputError
    from dcodp.files import writing
    from dcodp.yolo import PrunedTrainer

    def full_in_the_second_epoch(trainer):
        if trainer.epoch == 1:
            monkeypatch.setattr(writing.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))

    net = yolo(small)
    net.add_callback("on_train_epoch_end", full_in_the_second_epoch)
    with pytest.raises(InputError, match=r"the disk is full: .*last\.pt was not written"):
        net.train(trainer=PrunedTrainer, data=str(data), project=str(tmp_path), name="a", **SHORT | {"epochs": 3})
    weights = tmp_path / "a" / "weights"
    assert read_checkpoint(weights / "last.pt").epoch == 0
    assert {path.name for path in weights.iterdir()} == {"last.pt", "best.pt"}


def test_a_training_that_the_disk_ends_says_so_in_one_line(small, data, tmp_path, monkeypatch):
    """Also where ultralytics' own words are of something else, as when it strips its checkpoints."""
    from dcodp.errors import InputError
    from dcodp.files import refused
    from dcodp.yolo import trainers, tuning

    class Failing:
        def train(self):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    settings = tuning.Tuning(1, distill=0)
    teacher = type("Teacher", (), {"network": type("Net", (), {"task": "detect"})})
    monkeypatch.setattr(trainers, "trainer_class", lambda *_: lambda overrides: Failing())
    monkeypatch.setattr(tuning, "write_pt", lambda *_: None)
    images = type("Images", (), {"data": data})

    def trained():
        tuning.tuned(torch.nn.Conv2d(1, 1, 1), teacher, None, None, images, 64, settings, tmp_path)  # type: ignore[arg-type]

    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        trained()
    monkeypatch.setattr(refused.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match=r"^the disk is full: .*last\.pt"):
        trained()


def test_a_teacher_leaves_what_is_copied_alone(small):
    """After a loss that is no number ultralytics copies the net anew for its average."""
    from dcodp.training.distillation import Distillation
    from dcodp.yolo.teaching import Teaching

    network = open_checkpoint(small).network
    network.args = yolo(small).model.args
    teaching = Teaching(Distillation(None, {"model.1.conv": None}, 1.0))
    teaching.attach(network)
    assert network.criterion.teaching is teaching and len(network.model[0]._forward_pre_hooks) == 1
    teaching.detach()
    copied = copy.deepcopy(network)
    assert not hasattr(copied.criterion, "teaching")
    assert not any(module._forward_pre_hooks for module in copied.modules())
    teaching.attach(network)
    assert network.criterion.teaching is teaching
