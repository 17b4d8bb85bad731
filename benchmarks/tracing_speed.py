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
from documents.tracing_speed import LIMITS, document
from torch import nn

import dcodp
from dcodp import _ultralytics
from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions

SIZE, MEMORY_LIMIT_MB = 640, 1024


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
    command = " ".join(["python", "benchmarks/tracing_speed.py", *sys.argv[1:]])
    what = {"hardware": cpu_name(), "threads": threads, "libraries": library_versions(), "code": code_version()}
    measured = {"provenance": {**what, "command": command}, "nets": rows}
    write_atomically(out / "tracing_speed.json", json.dumps(measured, indent=1) + "\n")
    write_atomically(out / "tracing_speed.md", document(measured))


if __name__ == "__main__":
    main()
