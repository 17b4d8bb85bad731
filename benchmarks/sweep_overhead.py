"""What a launcher and the records cost per cell, beside the cells' own work.

    python benchmarks/sweep_overhead.py [--launcher serial --launcher joblib --launcher ray --launcher slurm]

Sweeps of twelve and of twenty-four small cells (generated images, a tiny RetinaNet, two criteria) with one worker, so
that nothing overlaps; in SLURM six cells share a job. The overhead of a call is its wall time, its start, its plan, its
jobs for what cells share and its report included, less what the jobs' stages took themselves. Per cell: what twelve
further cells add to it, over twelve. Data and imports are made warm by a call before. `ray` starts one here; `slurm`
takes the one that SLURM_CONF names, which should offer a single CPU (tests/workers/slurm_here.sh start FOLDER 1).
Writes sweep_overhead.json; exit status 1 if a launcher is above the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 2.0
CELLS = (
    "schedule=smoke", "model=retinanet_tiny_test", "importance=dcodp,l1",
    "image_size=64", "dataset.generate_train=12", "dataset.generate_val=4", "dataset.generate_size=96",
    "train.batch=4", "finetune.batch=4", "evaluation.pictures=1", "importance.images=4", "importance.batch=2",
    "evaluation.latency_runs=1", "device=cpu", "threads=1", "wandb.mode=disabled",
)  # fmt: skip
RATIOS = {12: "0.2,0.3,0.4,0.5,0.6,0.7", 24: "0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.55,0.6,0.65,0.7"}
ONE_WORKER = {
    "serial": (),
    "joblib": ("hydra.launcher.n_jobs=1",),
    "ray": (f"hydra.launcher.num_cpus={os.cpu_count()}",),
    "slurm": ("hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "hydra.launcher.cells_per_job=6"),
}


def sweep(folder: Path, launcher: str, ratios: str, results: Path) -> float:
    """Seconds that the command took."""
    places = (f"paths.data={folder / 'data'}", f"paths.results={results}")
    command = [sys.executable, str(ROOT / "run.py"), "-m", *CELLS, f"ratio={ratios}", *places, f"launcher={launcher}",
               *ONE_WORKER[launcher]]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"launcher={launcher} failed:\n{done.stderr}")
    return time.monotonic() - start


def own_work(results: Path) -> float:
    """Seconds that the stages of all jobs took."""
    records = [*results.glob("runs/*/record.json"), *results.glob("jobs/*/record.json")]
    told = [json.loads(path.read_text(encoding="utf-8"))["provenance"]["wall_seconds"] for path in records]
    return sum(sum(stages.values()) for stages in told)


def measured(folder: Path, launcher: str) -> dict[str, Any]:
    calls = {}
    for cells, ratios in RATIOS.items():
        results = folder / f"{launcher}-{cells}"
        wall, own = sweep(folder, launcher, ratios, results), own_work(results)
        calls[cells] = {"wall_seconds": wall, "own_seconds": own, "overhead_seconds": wall - own}
    few, many = sorted(calls)
    further = (calls[many]["overhead_seconds"] - calls[few]["overhead_seconds"]) / (many - few)
    return {"calls": calls, "overhead_per_cell_seconds": further}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launcher", action="append", choices=ONE_WORKER, help="by default serial and joblib")
    parser.add_argument("--out", type=Path, default=Path("results"))
    chosen = parser.parse_args()
    launchers = chosen.launcher or ["serial", "joblib"]
    with tempfile.TemporaryDirectory() as folder:
        sweep(Path(folder), "serial", "0.5", Path(folder) / "warm")
        rows = {launcher: measured(Path(folder), launcher) for launcher in launchers}
    what = {"hardware": cpu_name(), "code": code_version(), "libraries": library_versions()}
    found = {"launchers": rows, "limit": LIMIT_S, "provenance": what}
    write_atomically(chosen.out / "sweep_overhead.json", json.dumps(found, indent=1) + "\n")
    for launcher, row in rows.items():
        print(f"{launcher}: {row['overhead_per_cell_seconds']:.2f} s per cell")
    raise SystemExit(any(row["overhead_per_cell_seconds"] > LIMIT_S for row in rows.values()))


if __name__ == "__main__":
    main()
