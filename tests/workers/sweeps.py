"""A sweep of the size of a smoke test, and what must not depend on who ran it or how often it was stopped."""

import os
import subprocess
import sys
from pathlib import Path

from dcodp.files.tensors import load_tensors
from dcodp.records import load_records

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "schedule=smoke", "image_size=64", "dataset.generate_train=12", "dataset.generate_val=4",
    "dataset.generate_size=96", "train.batch=4", "finetune.batch=4", "evaluation.pictures=1", "importance.images=4",
    "importance.batch=2", "evaluation.latency_runs=1", "device=cpu", "threads=1", "wandb.mode=disabled",
)  # fmt: skip
THREE = ("model=yolov8n,yolov7_tiny_test,retinanet_tiny_test", "importance=dcodp,l1", "ratio=0.3,0.5")
TIMED = ("latency_ms", "latency", "seconds")


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *words]


def environment(**more: str) -> dict[str, str]:
    """Of processes that run this checkout with one core each."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **more}


def places(folder: Path) -> tuple[str, str]:
    return f"paths.data={folder / 'data'}", f"paths.results={folder / 'results'}"


def sweep(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`run.py -m` to its end, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = command("-m", *SMALL, *places(folder), *words)
    return subprocess.run(asked, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)


def outcome(folder: Path) -> dict[str, tuple]:
    """run id → its status, figures, plan and the bytes of its weights: all that a repetition must give again."""
    return {record.run_id: (record.status, _figures(record), *_artefacts(folder, record.run_id)) for record in
            load_records(folder / "results")}  # fmt: skip


def _figures(record) -> list[dict]:
    return [{key: value for key, value in stage.items() if key not in TIMED} for stage in record.stages]


def _artefacts(folder: Path, run_id: str) -> tuple[str, dict[str, bytes]]:
    run = folder / "results" / "runs" / run_id
    tensors, _ = load_tensors(run / "model.safetensors")
    weights = {name: bytes(tensor.contiguous().flatten().view(dtype=_bytes()).numpy()) for name, tensor in
               tensors.items() if tensor.numel()}  # fmt: skip
    return (run / "plan.json").read_text(), weights


def _bytes():
    import torch

    return torch.uint8
