"""The benchmark against ultralytics' trainer: the same images and boxes for both, and a table that says what ran."""

import json
import re
from pathlib import Path

import finetune_against_ultralytics as benchmark
import pytest
from documents.finetune_against_ultralytics import PARTS, ladder, table
from peer_ultralytics import export

from dcodp.config import DatasetConfig
from dcodp.data.splits import load

ROOT = Path(__file__).resolve().parents[1]


def row(trainer, seed, map50_95, **changes):
    cell = {"model": "yolov8n", "dataset": "cells", "image_size": 320, "batch": 16, "epochs": 6, "seed": seed}
    measured = {"map50_95": map50_95, "train_images": 205, "images": 87}
    speeds = {"images_per_second": 10.0, "images_per_cpu_second": 6.0, "hardware": "a CPU", "threads": 2}
    return {"trainer": trainer, "taken_back": None, **cell, **measured, **speeds, **changes}


def test_ultralytics_is_given_the_same_boxes(tmp_path):
    config = DatasetConfig(generate_train=3, generate_val=2, generate_size=64)
    sets = {split: load(config, tmp_path / "data", split) for split in ("train", "val")}
    described = json.loads(export(sets, tmp_path / "export").read_text())
    assert described["names"] == {str(k): name for k, name in enumerate(sets["train"].classes)}
    for image in sets["train"].images:
        assert (tmp_path / "export" / "images" / "train" / image.path.name).resolve() == image.path.resolve()
        lines = (tmp_path / "export" / "labels" / "train" / f"{image.path.stem}.txt").read_text().splitlines()
        assert len(lines) == len(image.boxes) > 0
        label, cx, cy, w, h = map(float, lines[0].split())
        corners = [(cx - w / 2) * 64, (cy - h / 2) * 64, (cx + w / 2) * 64, (cy + h / 2) * 64]
        assert corners == pytest.approx(image.boxes[0].tolist(), abs=1e-3) and label == image.labels[0]


def test_the_table_compares_seed_by_seed_and_keeps_earlier_cells(tmp_path):
    first = [row("ultralytics", 0, 0.5), row("ours", 0, 0.6), row("ultralytics", 1, 0.6)]
    benchmark.write(tmp_path, first)
    document = benchmark.write(tmp_path, [row("ours", 1, 0.5), row("ours", 0, 0.7, epochs=30)])
    (line,) = [line for line in document.splitlines() if line.startswith("| cells")]  # 30 epochs have no partner yet
    cell, figures = line.split(" | 2 | ")  # seeds
    assert cell == "| cells (205/87) | 320 | 16 | 6"
    assert figures == "0.550 ± 0.071 | 0.550 ± 0.071 | +0.000 ± 0.141 | 10.0 | 10.0 | 6.0 | 6.0 |"
    assert len(json.loads((tmp_path / f"{benchmark.NAME}.json").read_text())["rows"]) == 5


def test_the_ladder_is_against_the_whole_schedule():
    rows = [row("ours", 0, 0.6), row("ours", 0, 0.4, taken_back="warm-up"), row("ours", 1, 0.4, taken_back="warm-up")]
    (line,) = [line for line in ladder(rows).splitlines() if line.startswith("| cells")]
    assert line == "| cells (205/87) | 320 | 16 | 6 | 1 | 0.600 | 0.400 | -0.200 | warm-up |"
    assert ladder(rows[:1]) == ""
    alone = [set(overrides) for part, overrides in PARTS.items() if part != "all of them"]
    assert set(PARTS["all of them"]) == set().union(*alone)


def test_the_committed_table_is_that_of_the_committed_rows():
    path = ROOT / "results" / f"{benchmark.NAME}.json"
    rows = json.loads(path.read_text())["rows"]
    document = path.with_suffix(".md").read_text()
    assert table(rows) in document
    assert not re.search(r"/(work|home|tmp)/", path.read_text() + document)
