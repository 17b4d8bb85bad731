"""How long tracing and grouping takes, and how much memory, at the sizes that detectors are used at.

    python benchmarks/tracing_speed.py [--threads 1] [--out results]

Each net is traced in a process of its own: `dcodp.trace` in float32 at 640 px, the best of three; "forward" is one
plain forward pass there, and "memory" what the process's peak grew by above the model and its forward pass. Writes
tracing_speed.md and .json. Exit status 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dcodp
from dcodp import _ultralytics
from dcodp.records.provenance import code_version, cpu_name, library_versions

LIMITS = {"yolov8n": 1.0, "fasterrcnn_resnet50_fpn": 3.0, "rtdetr-l": 6.0}  # seconds on one CPU thread
SIZE, MEMORY_LIMIT_MB = 640, 1024
HEADER = ("net", "forward s", "trace s", "limit s", "memory MB")


def build(name: str) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """A net in evaluation mode, its inputs, and which part of its result is the output."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, SIZE, SIZE)
    if name.startswith("fasterrcnn"):
        from torchvision.models import detection

        sizes = {"min_size": SIZE, "max_size": SIZE}
        return getattr(detection, name)(weights=None, weights_backbone=None, **sizes).eval(), ([image[0]],), None
    _ultralytics.prepare()
    from ultralytics.nn import tasks

    kind = tasks.RTDETRDetectionModel if name.startswith("rtdetr") else tasks.DetectionModel
    return kind(f"{name}.yaml", verbose=False).eval(), (image,), lambda result: result[0]


def measure(name: str) -> dict[str, float]:
    model, inputs, outputs = build(name)
    with torch.no_grad():
        model(*inputs)  # warm-up
        start = time.perf_counter()
        model(*inputs)
        forward = time.perf_counter() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        dcodp.trace(model, inputs, outputs=outputs)
        seconds.append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"forward_seconds": forward, "trace_seconds": min(seconds), "memory_mb": grown / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--measure", choices=list(LIMITS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.measure:
        print(json.dumps(measure(chosen.measure)))
        return
    rows = {}
    for name in LIMITS:
        command = [sys.executable, __file__, "--measure", name, "--threads", str(chosen.threads)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[name] = json.loads(told.splitlines()[-1])
        print(f"{name}: {rows[name]['trace_seconds']:.2f} s (limit {LIMITS[name]:.0f} s)", flush=True)
    write(chosen.out, rows, chosen.threads)
    kept = all(r["trace_seconds"] <= LIMITS[n] and r["memory_mb"] < MEMORY_LIMIT_MB for n, r in rows.items())
    sys.exit(not kept)


def write(out: Path, rows: dict[str, dict[str, float]], threads: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    what = {"hardware": cpu_name(), "threads": threads, "libraries": library_versions(), "code": code_version(),
            "command": " ".join(["python", "benchmarks/tracing_speed.py", *sys.argv[1:]])}  # fmt: skip
    (out / "tracing_speed.json").write_text(json.dumps({"provenance": what, "nets": rows}, indent=1) + "\n")
    lines = ["# Tracing and grouping at 640 px", ""]
    lines += [f"`{what['command']}`, {threads} thread of {cpu_name()}, torch {torch.__version__}, float32.", ""]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for name, row in rows.items():
        cells = (name, *(f"{row[k]:.2f}" for k in ("forward_seconds", "trace_seconds")))
        lines.append("| " + " | ".join([*cells, f"{LIMITS[name]:.0f}", f"{row['memory_mb']:.0f}"]) + " |")
    (out / "tracing_speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
