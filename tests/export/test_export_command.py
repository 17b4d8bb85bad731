"""`dcodp export`: files, table, export.json; one format that fails stops no other and is told at the end."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from nets import small_yolo
from typer.testing import CliRunner

from dcodp.cli import build_app, main
from dcodp.commands import export as command
from dcodp.export import formats


@pytest.fixture(scope="module")
def opened():
    return SimpleNamespace(network=small_yolo(), task="detect", names={0: "cat", 1: "dog"}, image_size=64, plan=None)


@pytest.fixture
def arguments(opened, monkeypatch, tmp_path):
    """Of a command that finds a net, and a folder of images."""
    monkeypatch.setattr(command, "open_net", lambda path, imports=(): opened)
    (tmp_path / "images").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), pixels)
    return ["export", "small.safetensors", "--out", str(tmp_path / "out"), "--data", str(tmp_path / "images"),
            "--images", "2", "--threads", "1", "--runs", "3", "--to"]  # fmt: skip


def test_files_are_written_checked_and_told(arguments, tmp_path):
    result = CliRunner().invoke(build_app(), [*arguments, "torchscript,torch_export"])
    assert result.exit_code == 0, result.output
    assert (
        "small.torchscript" in result.output and "small.pt2" in result.output and "the net, in torch" in result.output
    )
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["source"] == "small.safetensors" and facts["image_size"] == 64 and not facts["failed"]
    first = facts["files"][0]
    assert first["file"] == "small.torchscript" and first["bytes"] == (tmp_path / "out" / first["file"]).stat().st_size
    assert max(first["relative_error"]) < 1e-4 and first["unmatched"] == 0 < first["detections"]
    assert first["latency"]["n"] == 3 and first["latency"]["threads"] == 1 and first["version"] == facts["torch"]
    assert facts["net"]["median_ms"] > 0


def test_one_that_fails_is_told_and_the_others_are_there(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(formats.FORMATS, "onnx", formats.Format(".onnx", ("no_such_package",)))
    with pytest.raises(SystemExit) as left:
        main([*arguments, "onnx,torchscript"])
    told = capsys.readouterr()
    assert left.value.code == 2
    assert told.err.startswith("dcodp: not exported: onnx (the package no_such_package is not installed here")
    assert len(told.err.splitlines()) == 1 and (tmp_path / "out" / "small.torchscript").is_file()
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert list(facts["failed"]) == ["onnx"] and [f["format"] for f in facts["files"]] == ["torchscript"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["coreml"], "the format 'coreml' is not known; use one or more of onnx"),
        (["onnx", "--imgsz", "100"], "imgsz=100 does not fit the net's strides; use a multiple of 8"),
        (["onnx", "--images", "0"], "--images 0 is out of range"),
        (["onnx", "--runs", "0"], "--runs 0 is out of range"),
        (["onnx", "--threads", "-1"], "--threads -1 is out of range"),
    ],
)
def test_bad_input_is_one_line(arguments, more, line, capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main([*arguments, *more])
    told = capsys.readouterr().err
    assert left.value.code == 2 and line in told and len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_data_two_pictures_come_along():
    assert {path.name for path in command.picture_files(None)} == {"bus.jpg", "zidane.jpg"}
