"""What a training step with a teacher costs beside a plain step: the pruned YOLOv8n at half of the FLOPs.

    python benchmarks/distillation_step.py [--size 640] [--batch 8] [--pairs 10] [--device cpu] [--bfloat16]
        [--threads 1]

Plain and taught steps (forward, loss, backward, AdamW; no loading of images) take turns on the same net and batch, so
that whatever else the machine does meets both; on a GPU in bfloat16. The ratio is the median over pairs. Writes
distillation_step.json. Exit status 1 if the ratio is above its limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

import dcodp
from dcodp.config import ModelConfig
from dcodp.detectors import Batch
from dcodp.detectors.base import Detector
from dcodp.detectors.registry import build
from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions
from dcodp.training.distillation import Distillation, distillation
from dcodp.training.objective import Objective, Whole

LIMIT = 1.5  # taught step / plain step
BOXES = 8  # objects in each image


def nets(size: int, device: str) -> tuple[Detector, Distillation]:
    """The pruned detector and what teaches it."""
    torch.manual_seed(0)
    dense, _ = build(ModelConfig(), tuple(f"class {i}" for i in range(80)))
    graph = dense.coupling_graph(size)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, target="flops:0.5")
    network = dcodp.prune(dense.network, plan).to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    small = dense.with_network(network)
    return small, distillation(dense, small.network, graph, plan, 1.0)


def random_batch(size: int, images: int, device: str) -> Batch:
    count = images * BOXES
    boxes = torch.cat([torch.rand(count, 2) * 0.6 + 0.2, torch.rand(count, 2) * 0.3 + 0.05], 1)
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    return Batch(pixels, boxes, torch.randint(0, 80, (count,)), torch.arange(images).repeat_interleave(BOXES)).to(
        device
    )


def seconds(objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, short: bool) -> float:
    device = batch.images.device
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronise()
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=short):
        loss, _ = objective(Whole(batch))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    synchronise()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"size": 640, "batch": 8, "pairs": 10, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="also on a CPU, as with finetune.amp_on_cpu")
    parser.add_argument("--out", type=Path, default=Path("results"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    short = chosen.bfloat16 or chosen.device != "cpu"
    small, term = nets(chosen.size, chosen.device)
    optimizer = torch.optim.AdamW(small.network.parameters(), 1e-6)
    batch = random_batch(chosen.size, chosen.batch, chosen.device)
    kinds = {"plain": Objective(small, {}), "taught": Objective(small, {"distill": term})}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for pair in range(chosen.pairs + 1):
        for kind, objective in kinds.items():
            taken = seconds(objective, optimizer, batch, short)
            if pair:  # the first is a warm-up
                times[kind].append(taken)
    ratio = statistics.median(t / p for p, t in zip(times["plain"], times["taught"], strict=True))
    medians = {f"{kind}_seconds": statistics.median(values) for kind, values in times.items()}
    measured = {"ratio": ratio, "limit": LIMIT, **medians}
    on = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else cpu_name()
    settings = {name: getattr(chosen, name) for name in ("size", "batch", "pairs", "threads")}
    command = " ".join(["python", "benchmarks/distillation_step.py", *sys.argv[1:]])
    what = {**settings, "numbers": "bfloat16" if short else "float32", "hardware": on, "command": command,
            "code": code_version(), "libraries": library_versions()}  # fmt: skip
    text = json.dumps({**measured, "provenance": what}, indent=1) + "\n"
    write_atomically(chosen.out / "distillation_step.json", text)
    print(", ".join(f"{key} {value:.3f}" for key, value in measured.items()))
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
