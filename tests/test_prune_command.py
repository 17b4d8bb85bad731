"""`dcodp prune --model NAME`: weights alone become a small net with its card, by way of the pipeline and its record."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from typer.testing import CliRunner

import dcodp
from dcodp import named
from dcodp.cli import build_app, main
from dcodp.config import ModelConfig
from dcodp.detectors import DecodeSettings, build
from dcodp.errors import InputError
from dcodp.evaluation.complexity import count_parameters
from dcodp.files import read_json
from dcodp.named import known_models, opened, prune_named
from dcodp.pipeline import running
from dcodp.yolo.job import Job
from dcodp.yolo.tuning import usual_epochs, usual_lr

NAMES, SIZE = ("red", "blue"), 64
QUICK = ("--imgsz", str(SIZE), "--batch", "4", "--device", "cpu")
CHEAP = ["importance.images=4", "allocation.sensitivity=0", "evaluation.latency_runs=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images with a coloured rectangle each, in a data.yaml."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(8):
            left, top, width, height = (int(n) for n in generator.integers(12, 30, 4))
            image = Image.new("RGB", (SIZE, SIZE), (120, 120, 120))
            ImageDraw.Draw(image).rectangle((left, top, left + width, top + height), fill=NAMES[number % 2])
            row = [number % 2, *((np.array([left + width / 2, top + height / 2, width, height]) / SIZE).tolist())]
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            image.save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text(" ".join(map(str, row)) + "\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: red, 1: blue}\n")
    return folder / "data.yaml"


def weights(path, family, classes=NAMES, variant="tiny_test"):
    """A state dict as somebody's training with torchvision saves it."""
    torch.manual_seed(0)
    network = build(ModelConfig(family, family, variant), classes)[0].network
    torch.save({"model": network.state_dict(), "epoch": 3}, path)
    return path


def prune(*words):
    return CliRunner().invoke(build_app(), ["prune", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """(folder, words that made it, what was shown)."""
    folder = tmp_path_factory.mktemp("made")
    source = weights(folder / "retina.pth", "retinanet")
    words = (source, "--model", "retinanet_tiny_test", "--data", data, "--epochs", 1, *QUICK, "--out", folder / "small")
    return folder / "small", words, prune(*words)


def record_of(folder):
    (path,) = (folder / "work" / "runs").glob("*/record.json")
    return read_json(path), path.parent


def test_everything_is_there_and_the_card_says_what_the_record_does(made):
    folder, _, shown = made
    assert shown.exit_code == 0 and "small.safetensors" in shown.stdout.replace("\n", "")
    names = {path.name for path in folder.iterdir()}
    assert names == {"small.safetensors", "plan.json", "card.json", "card.md", "pictures.png", "work"}
    card, (record, run) = read_json(folder / "card.json"), record_of(folder)
    assert [stage["name"] for stage in record["stages"]] == ["dense", "pruned", "repaired", "finetuned"]
    for block, stage in (("dense", record["stages"][0]), ("pruned", record["stages"][-1])):
        assert card[block] == {**stage, "split": "val"}
    assert card["pruned"]["flops"] / card["dense"]["flops"] == pytest.approx(0.5, abs=0.01)
    assert card["trained"] == {"epochs": 1, "images": 8, "seed": 0, "distill": 1.0, "distill_features": 1.0}
    for ours, theirs in (("small.safetensors", "model.safetensors"), ("plan.json", "plan.json")):
        assert (folder / ours).read_bytes() == (run / theirs).read_bytes()
    text = (folder / "card.md").read_text()
    assert f"{card['pruned']['parameters'] / 1e6:.2f} M" in text and "| red |" in text and "ultralytics" not in text


def test_the_small_net_is_opened_from_its_folder_alone(made):
    folder, _, _ = made
    small = opened(folder)
    assert small.classes == NAMES
    assert count_parameters(small.network) == read_json(folder / "card.json")["pruned"]["parameters"]
    with safe_open(folder / "small.safetensors", "pt") as stored:
        state = small.network.state_dict()
        assert all(torch.equal(state[name], stored.get_tensor(name)) for name in state)
    images = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8)
    assert len(small.predict(images, DecodeSettings())) == 1


def test_what_is_there_is_not_done_again(made, monkeypatch):
    folder, words, _ = made
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(named, "run_cell", None)
    monkeypatch.setattr(named, "build", None)
    assert prune(*words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_a_lost_card_is_written_anew_from_the_record(made, monkeypatch):
    folder, words, _ = made
    card = (folder / "card.json").read_text()
    (folder / "card.json").unlink()
    monkeypatch.setattr(running, "run_stages", None)
    assert prune(*words).exit_code == 0
    assert (folder / "card.json").read_text() == card


def test_other_wishes_do_not_mix(made):
    folder, words, _ = made
    with pytest.raises(InputError, match=r"holds a run of retina\.pth with target=flops:0\.5.*choose another --out"):
        prune(*words, "--target", "flops:0.7")
    assert read_json(folder / "card.json")["asked"]["target"] == "flops:0.5"


def test_interrupted_it_goes_on(data, tmp_path, monkeypatch):
    import dcodp.pipeline.stages as stages

    source = weights(tmp_path / "fcos.pth", "fcos")
    job = Job(source, tmp_path / "small", data, epochs=1, image_size=SIZE, batch=4, device="cpu")
    finetuned, scores, scored = stages.finetuned, stages.channel_scores, []

    def stopped(cell, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "finetuned", stopped)
    with pytest.raises(KeyboardInterrupt):
        prune_named("fcos_tiny_test", job, "strong", CHEAP)
    assert not (tmp_path / "small" / "card.json").exists()
    monkeypatch.setattr(stages, "finetuned", finetuned)
    monkeypatch.setattr("dcodp.pipeline.pruning.group_scores", None)  # scored once
    monkeypatch.setattr(stages, "channel_scores", lambda *args: scored.append(1) or scores(*args))
    card = prune_named("fcos_tiny_test", job, "strong", CHEAP)
    assert scored == [1] and card["pruned"]["name"] == "finetuned"
    assert card["pruned"]["parameters"] < card["dense"]["parameters"]


@pytest.mark.parametrize(
    ("model", "family", "asked"),
    [
        ("faster_rcnn_tiny_test", "faster_rcnn", {"target": "parameters:0.5"}),
        ("ssd_tiny_test", "ssd", {"target": None, "ratio": 0.5, "round_to": 4}),
        ("yolov7_tiny_test", "yolov7", {}),
    ],
)
def test_every_family_without_training(model, family, asked, data, tmp_path):
    job = Job(
        weights(tmp_path / "net.pth", family),
        tmp_path / "small",
        data,
        epochs=0,
        image_size=SIZE,
        device="cpu",
        **asked,
    )
    card = prune_named(model, job, "strong", CHEAP)
    assert card["pruned"]["name"] == "repaired" and card["trained"]["epochs"] == 0
    assert count_parameters(opened(job.out).network) == card["pruned"]["parameters"] < card["dense"]["parameters"]
    plan = dcodp.PrunePlan.from_json(job.out / "plan.json")
    assert 0 < plan.channel_ratio < 1


@pytest.mark.usefixtures("counted_layers")
def test_what_takes_one_tensor_is_exported_and_pruned_to_a_latency(data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source, common = weights(tmp_path / "net.pth", "yolov7"), {"epochs": 0, "image_size": SIZE, "device": "cpu"}
    job = Job(source, tmp_path / "small", data, target="latency:0.7", threads=1, **common)
    card = prune_named("yolov7_tiny_test", job, "strong", CHEAP)
    (told,) = [note for note in card["notes"] if "of the dense one's time" in note]
    assert "onnxruntime, 1 threads: the pruned net took 0." in told and list(card["latency"]) == ["torch"]
    assert "| latency, torch |" in (job.out / "card.md").read_text()
    assert list((tmp_path / "dcodp").glob("layers-onnxruntime-1-threads-*.json"))
    before = card["latency"]["torch"]
    monkeypatch.setattr(running, "run_stages", None)
    card = prune_named("yolov7_tiny_test", replace(job, export=("onnx",)), "strong", CHEAP)
    assert set(card["exports"]) == {"onnx"} and (job.out / "small.onnx").is_file()
    assert {"torch", "onnx"} == card["latency"].keys() and card["latency"]["torch"] != before
    assert prune_named("yolov7_tiny_test", replace(job, export=("onnx",)), "strong", CHEAP) == card


def test_a_method_takes_its_steps_here_too(data, tmp_path):
    job = Job(weights(tmp_path / "net.pth", "ssd"), tmp_path / "small", data, target="flops:0.1")
    assert named.composed("ssd_tiny_test", job, "strong").steps == 2
    assert named.composed("ssd_tiny_test", replace(job, target="latency:0.1"), "strong").steps == 1


def test_epochs_by_the_number_of_images_and_the_size_of_the_model(data, tmp_path):
    job = Job(weights(tmp_path / "net.pth", "ssd"), tmp_path / "small", data)
    config = named.composed("ssdlite320", job, "strong")
    assert (
        config.finetune.lr == usual_lr(8)
        and config.finetune.epochs == usual_epochs(8)
        and config.image_size == 320
        and config.train.epochs == 0
    )
    assert named.composed("retinanet", job, "paper").image_size == 640
    assert (config.dataset.val, config.dataset.test) == ("val", None)
    tested = named.composed("retinanet", replace(job, split="test"), "paper").dataset
    assert (tested.val, tested.test) == ("val", "test")  # what is reported chooses no epoch


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--model", "nose"), "--model nose is not known; use one of faster_rcnn, "),
        ((), "holds weights alone; give the .pt file that ultralytics wrote, or prune it by "),
        (("--model", "ssd_tiny_test"), "give weights of ssd tiny_test"),
        (("--model", "retinanet_tiny_test", "--method", "nose"), "method=nose is not known; use one of "),
        (("--model", "retinanet_tiny_test", "--imgsz", "65"), "use a multiple of 32"),
        (("--model", "retinanet_tiny_test", "--split", "test"), "names no images under 'test'"),
        (("--model", "retinanet_tiny_test", "--epochs", "-1"), "--epochs -1 is out of range"),
        (("--model", "retinanet_tiny_test", "--runtime", "onnx"), "--runtime onnx is not known; use onnxruntime or "),
        (("--model", "retinanet_tiny_test", "--import", "layers"), "--import is for nets of ultralytics"),
        (("--model", "retinanet_tiny_test", "--export", "onnx"), "--export is for nets that take their images as one "),
        (("--model", "retinanet_tiny_test", "--target", "latency:0.5"), "takes lists of images, which no runtime can "),
    ],
)
def test_bad_input_is_one_line(words, line, data, tmp_path, capsys):
    source = weights(tmp_path / "net.pth", "retinanet")
    with pytest.raises(SystemExit) as stopped:
        main(["prune", str(source), "--data", str(data), "--device", "cpu", "--out", str(tmp_path / "small"), *words])
    told = capsys.readouterr().err
    (said,) = [text for text in told.splitlines() if text.startswith("dcodp: ")]
    assert stopped.value.code == 2 and line in said and not (tmp_path / "small" / "card.json").exists()


def test_images_without_labels_are_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"give --data data\.yaml in place of --images"):
        prune(weights(tmp_path / "net.pth", "ssd"), "--model", "ssd_tiny_test", "--images", data.parent / "images")


def test_weights_of_other_classes_are_refused(data, tmp_path):
    source = weights(tmp_path / "net.pth", "retinanet", ("red", "green", "yellow"))
    job = Job(source, tmp_path / "small", data, epochs=0, image_size=SIZE, device="cpu")
    with pytest.raises(InputError, match=re.escape("knows 0 of 2 classes of")):
        prune_named("retinanet_tiny_test", job)


def test_the_names_are_those_of_conf():
    assert {"faster_rcnn", "retinanet", "fcos", "ssd300", "ssdlite320", "yolov7"} <= set(known_models())
