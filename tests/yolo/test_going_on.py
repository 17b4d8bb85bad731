"""Runs that go on from a pruned net, and runs of nets that ultralytics describes."""

import made
import pytest
import torch

import dcodp
from dcodp.compose import cells, known_nets, register
from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.registry import build
from dcodp.detectors.ultralytics.opening import open_checkpoint
from dcodp.errors import InputError
from dcodp.pipeline import run_cell
from dcodp.records import run_folder
from dcodp.resources import folder

SMOKE = [
    "schedule=smoke",
    "image_size=64",
    "importance=l1",
    "wandb.mode=disabled",
    "evaluation.pictures=0",
    "threads=1",
]


def config(*overrides):
    register()
    ((_, found),) = cells(folder("conf"), [*SMOKE, *overrides])
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made.data(tmp_path_factory.mktemp("data"), "detect")


@torch.no_grad()
@pytest.mark.parametrize("family", ["yolov8", "ultralytics"])
def test_a_detector_of_pruned_weights(small, family):
    model = ModelConfig(family=family, variant="n" if family == "yolov8" else "yolov8n", weights=str(small))
    detector, notes = build(model, ("red", "blue"))
    opened = open_checkpoint(small)
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(detector.network(x)[0], opened.network(x)[0])
    assert detector.pruned_by == opened.plan
    assert "pruned before" in notes[0]
    with pytest.raises(InputError, match="a pruned net for 2 classes, the data have 3"):
        build(model, ("red", "blue", "green"))


def test_a_run_goes_on_from_pruned_weights(best, small, data, tmp_path):
    asked = config(
        "model=yolov8n", f"model.weights={small.with_suffix('.safetensors')}", "dataset=custom", f"dataset.file={data}",
        "train.epochs=0", "target=flops:0.7", f"paths.results={tmp_path}",
    )  # fmt: skip
    record = run_cell(asked)
    dense, pruned = record.block("dense"), record.block("pruned")
    assert dense["parameters"] == sum(p.numel() for p in open_checkpoint(small).network.parameters())
    assert pruned["flops"] / dense["flops"] == pytest.approx(0.7, abs=0.01)
    path = run_folder(tmp_path, record.run_id).model
    smaller = dcodp.load(open_checkpoint(best).network, path)  # from the dense architecture in one step
    assert sum(p.numel() for p in smaller.parameters()) == pruned["parameters"]


@pytest.mark.parametrize("name", ["yolo11n", "yolo26n"])
def test_a_run_of_a_net_that_ultralytics_describes(name, data, tmp_path):
    asked = config(
        f"model={name}", "dataset=custom", f"dataset.file={data}", "ratio=0.3", f"paths.results={tmp_path}",
        "finetune.distill=1",
    )  # fmt: skip
    record = run_cell(asked)
    assert record.status == "done"
    assert record.block("finetuned")["parameters"] < record.block("dense")["parameters"]


def test_a_description_of_ones_own(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "nc: 80\nbackbone:\n- [-1, 1, Conv, [16, 3, 2]]\n- [-1, 1, Conv, [32, 3, 2]]\n- [-1, 1, Conv, [32, 3, 2]]\n"
        "head:\n- [[2], 1, Detect, [nc]]\n"
    )
    asked = config(f"model={tmp_path / 'mine.yaml'}")
    assert (asked.model.name, asked.model.family) == ("mine", "ultralytics")
    detector, _ = build(asked.model, ("red", "blue"))
    assert detector.network.model[-1].nc == 2
    with pytest.raises(InputError, match=r"no description that ultralytics knows|does not exist"):
        build(ModelConfig(family="ultralytics", variant="yolo99n"), ("red",))


@pytest.mark.parametrize("variant", ["yolo11n", "yolov10n", "rtdetr-l"])
def test_every_kind_of_head_is_trained(variant):
    torch.manual_seed(0)
    detector, _ = build(ModelConfig(name=variant, family="ultralytics", variant=variant), ("red", "blue"))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = Batch(images, torch.tensor([[0.5, 0.5, 0.4, 0.3]]), torch.tensor([1]), torch.tensor([0]))
    detector.network.train()
    loss, parts = detector.loss_from(detector.training_outputs(batch), batch)
    loss.backward()
    assert float(loss.detach()) > 0 and parts
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.network.parameters())


def test_names_of_all_scales():
    assert {"yolo11n", "yolo26x", "rtdetr-l", "yolov5n-p6", "yolov3-tiny"} <= set(known_nets())
    assert "yolov8n" not in known_nets()  # described in conf/model
