"""A criterion, a repair and a detector of one's own: one file each in a folder anywhere, run by the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dcodp import own
from dcodp.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "criteria/brightness.py": """
from dcodp.calibration.maps import MapScores
from dcodp.importance.criterion import Criterion


def brightness(maps):
    return maps.mean((2, 3))


CRITERION = Criterion((MapScores(per_image=brightness),))
""",
    "conf/importance/brightness.yaml": "name: brightness\nimages: 4\nbatch: 2\nseed: ${seed}\n",
    "repairs/louder.py": """
import torch

from dcodp.repairs import Repair


@torch.no_grad()
def mend(case):
    for parameter in case.pruned.parameters():
        parameter.mul_(1.01)
    return ["everything is a little louder"]


REPAIR = Repair((), mend)
""",
    "conf/repair/louder.yaml": "name: louder\n",
    "detectors/two_layers.py": """
from torch import nn

from dcodp.detectors.families import yolov8


class TwoLayers(yolov8.YOLOv8):
    pass


def build(model, classes):
    found, notes = yolov8.build(model, classes)
    return TwoLayers(model.name, found.network, classes), [*notes, "built by two_layers"]
""",
    "conf/model/mine.yaml": "name: mine\nfamily: two_layers\nvariant: n\n",
}
SMALL = [
    "schedule=smoke", "image_size=64", "dataset.generate_train=8", "dataset.generate_val=4", "dataset.generate_size=64",
    "train.batch=4", "finetune.batch=4", "evaluation.pictures=0", "wandb.mode=disabled",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(text)
    return tmp_path / "own"


def test_all_three_work_through_the_command_line(folder, tmp_path):
    words = ["paths.own=own", "model=mine", "importance=brightness", "repair=louder"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *SMALL, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(next((tmp_path / "results/runs").glob("*/record.json")).read_text())
    assert [stage["name"] for stage in record["stages"]] == ["dense", "pruned", "repaired", "finetuned"]
    assert {"built by two_layers", "everything is a little louder"} <= set(record["notes"])
    assert record["config"]["importance"]["name"] == "brightness" and record["run_id"].startswith(
        "mine-shapes-brightness"
    )


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"paths\.own=.*nowhere is no folder; give the one with criteria"):
        own.use(tmp_path / "nowhere")
