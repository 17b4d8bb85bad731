"""What torch-pruning makes of one architecture; `architectures.py` runs it in a process of its own, with limits.

    pip install torch-pruning==1.6.1
    python benchmarks/peer_torch_pruning.py yolov8n 128 train

Set up as in its own examples: half of the channels of every layer by magnitude, the layers that its examples leave
alone left alone, in training mode for YOLO and evaluation mode otherwise. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import torch_pruning  # pyright: ignore[reportMissingImports]
from torch import nn
from zoo import ARCHITECTURES, Architecture

from dcodp.testing import run

RATIO = 0.5


def ignored_layers(architecture: Architecture, model: Any) -> list[nn.Module]:
    """As in torch-pruning's examples: the last layer of a classifier, the head of a detector."""
    if architecture.ignored == ("classifier",):
        return [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    if architecture.family == "ultralytics":
        return [model.model[-1]]
    return [model.get_submodule(name) for name in architecture.ignored]


def prune(architecture: Architecture, model: Any, inputs: tuple[Any, ...]) -> None:
    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        inputs,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=ignored_layers(architecture, model),
        num_heads=heads,
        forward_fn=lambda network, arguments: network(*arguments),
    )
    pruner.step()
    if hasattr(model, "hidden_dim") and hasattr(model, "conv_proj"):  # torchvision's ViT, as in the example
        model.hidden_dim = model.conv_proj.out_channels


def attempt(architecture: Architecture, size: int, training: bool) -> dict[str, Any]:
    """seconds, removed (share of the parameters), problem (None: it runs and its outputs have their dense shapes)."""
    torch.manual_seed(0)
    model = architecture.build()
    inputs = architecture.inputs(size, torch.float32)
    before, dense = sum(p.numel() for p in model.parameters()), shapes(architecture, model, inputs)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    start = time.perf_counter()
    prune(architecture, model.train(training), inputs)
    seconds = time.perf_counter() - start
    removed = 1 - sum(p.numel() for p in model.parameters()) / before
    found = shapes(architecture, model, inputs)
    problem = None if found == dense else f"output shapes changed: {dense} became {found}"
    return {"seconds": round(seconds, 2), "removed": removed, "problem": problem}


def shapes(architecture: Architecture, model: nn.Module, inputs: tuple[Any, ...]) -> list[list[int]]:
    """Of the heads where the number of detections may differ, else of the result."""
    return [list(t.shape) for t in run(model, inputs, architecture.compared, architecture.heads)]


def main() -> None:
    name, size, mode = sys.argv[1:]
    torch.set_num_threads(1)
    try:
        result = attempt(ARCHITECTURES[name], int(size), mode == "train")
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        result = {"seconds": None, "removed": None, "problem": f"{type(error).__name__}: {first_line}"[:200]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
