"""Every detector of the paper learns the generated shapes, by the command whose records lie under results/shapes."""

from pathlib import Path

import pytest

from dcodp.compose import cells, register
from dcodp.pipeline import run_cell

ROOT = Path(__file__).resolve().parents[1]
register()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["yolov8n", "yolov7_tiny_test", "faster_rcnn_tiny_test"])
def test_it_learns(tmp_path, model):
    places = [f"paths.data={tmp_path / 'data'}", f"paths.results={tmp_path / 'results'}", "wandb.mode=disabled"]
    overrides = ["experiment=shapes_detectors", f"model={model}", "finetune.epochs=0", *places]
    ((_, config),) = cells(ROOT / "conf", overrides)
    assert run_cell(config).dense["map50"] >= 0.6
