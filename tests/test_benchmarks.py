"""Benchmarks run as they stand, at sizes that say nothing: what they measure is in results/, that they work is here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = {  # status 1 says that a limit was not kept
    "importance": "--model retinanet_tiny_test --images 2 --batch 2 --size 64 --repeats 1",
    "calibration": "--sizes 2 --sets 2 --image-size 64 --batch 2 --criteria dcodp hrank",
    "distillation_step": "--size 64 --batch 2 --pairs 1",
    "pruning_cost": "--size 64 --images 4",
    "records_at_scale": "--records 20",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_writes_its_figures(name, tmp_path):
    words = [sys.executable, f"benchmarks/{name}.py", *SMALL[name].split(), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert [json.loads(path.read_text()) for path in tmp_path.glob("*.json")], done.stdout[-2000:]
