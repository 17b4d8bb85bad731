"""What pruning and repair cost beside forward passes over the same images: YOLOv8n, method=strong, half of the FLOPs.

    python benchmarks/pruning_cost.py [--size 640] [--images 128] [--threads 1] [--out results]

Seconds are of the processor, all threads together, so that other work on the machine counts little; memory is what the
process's peak grew by above the net and the images. "plain" are forward passes over the images in batches of 8 without
gradients; "prune" is all of it: tracing, looking at the images, scores, measuring what single groups are worth,
choosing, slicing, repair. Writes pruning_cost.json. Exit status 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clock import measured

from dcodp.compose import cells, register
from dcodp.config import Config, ModelConfig
from dcodp.detectors.registry import build
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions
from dcodp.yolo.shrinking import Shrinking

ROOT = Path(__file__).resolve().parents[1]
LIMIT, LIMIT_MB = 10.0, 3 * 1024  # passes over the images; mebibytes
BATCH = 8


def detector() -> UltralyticsNet:
    torch.manual_seed(0)
    found, _ = build(ModelConfig(), tuple(f"class {i}" for i in range(80)))
    assert isinstance(found, UltralyticsNet)
    found.network.eval()
    return found


def method() -> Config:
    register()
    ((_, config),) = cells(ROOT / "conf", ["method=strong"])
    return config


def cost(work: Callable[[], Any]) -> tuple[float, float | None]:
    """Seconds of the processor, and mebibytes above what was there before."""
    with measured("cpu") as before:
        pass
    with measured("cpu") as found:
        start = time.process_time()
        work()
        seconds = time.process_time() - start
    if found.mebibytes is None or before.mebibytes is None:
        return seconds, None
    return seconds, found.mebibytes - before.mebibytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"size": 640, "images": 128, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    net, config = detector(), method()
    images = torch.randint(0, 256, (chosen.images, 3, chosen.size, chosen.size), dtype=torch.uint8)
    batches = list(images.split(BATCH))

    @torch.no_grad()
    def plain() -> None:
        for batch in batches:
            net.network(net.scaled(batch))

    net.network(net.scaled(batches[0][:1]))  # a warm-up
    seconds, _ = cost(plain)
    pruning, megabytes = cost(lambda: Shrinking(net, batches, config).to(0.5, "flops:0.5"))
    found = {"plain_seconds": seconds, "prune_seconds": pruning, "ratio": pruning / seconds, "limit": LIMIT,
             "memory_mb": megabytes, "memory_limit_mb": LIMIT_MB}  # fmt: skip
    what = {"size": chosen.size, "images": chosen.images, "threads": chosen.threads, "hardware": cpu_name(),
            "code": code_version(), "libraries": library_versions()}  # fmt: skip
    write_atomically(chosen.out / "pruning_cost.json", json.dumps({**found, "provenance": what}, indent=1) + "\n")
    print(", ".join(f"{key} {value:.2f}" for key, value in found.items() if value is not None))
    raise SystemExit(found["ratio"] > LIMIT or (megabytes or 0) > LIMIT_MB)


if __name__ == "__main__":
    main()
