"""The default number of calibration images is what results/calibration.json finds enough for the default criterion."""

import json
from pathlib import Path

from dcodp.compose import cells, register
from dcodp.config import ImportanceConfig
from dcodp.importance import criterion, names

ROOT = Path(__file__).resolve().parents[2]
register()


def test_the_default_follows_from_the_measurement():
    measured = json.loads((ROOT / "results" / "calibration.json").read_text())
    size = measured["enough"]["dcodp"]
    by_size = {int(k): v["rank_correlation"] for k, v in measured["criteria"]["dcodp"].items()}
    means = {k: sum(v) / len(v) for k, v in by_size.items()}
    assert set(means) >= {8, 32, 128} and means[size] >= 0.95
    assert all(mean < 0.95 for smaller, mean in means.items() if smaller < size)
    assert ImportanceConfig().images == size


def test_every_criterion_that_looks_at_images_has_it():
    for name in names():
        if criterion(name).sees != "weights":
            ((_, config),) = cells(ROOT / "conf", [f"importance={name}", "schedule=paper_voc"])
            assert config.importance.images == ImportanceConfig().images, name
