"""Small checkpoints and data sets of every task, made on the spot."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import dcodp
from dcodp import _ultralytics
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import Opened
from dcodp.detectors.ultralytics.writing import mark, write_pt, write_safetensors

NAMES = {0: "red", 1: "blue"}
SIZE = 64
COLOURS = ((220, 40, 40), (40, 60, 220))
SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}


def checkpoint(path: Path, name: str, kind: str = "DetectionModel", seed: int = 0, **further: Any) -> Path:
    """An untrained net of ultralytics as its trainer would have saved it, with two classes."""
    _ultralytics.prepare()
    from ultralytics.nn import tasks

    torch.manual_seed(seed)
    network: Any = getattr(tasks, kind)(f"{name}.yaml", nc=2, verbose=False)
    settle(network)
    classes = sorted(NAMES.values()) if kind == "ClassificationModel" else NAMES.values()  # of folders: by name
    network.names = dict(enumerate(classes))
    arguments = {"imgsz": 64, "data": "somewhere.yaml", "task": getattr(network, "task", "detect")}
    content = {"epoch": -1, "model": None, "ema": copy.deepcopy(network).half(), "train_args": arguments, **further}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@torch.no_grad()
def settle(network: Any) -> None:
    """Statistics and weights of norms that differ channel by channel, so that a swapped pair shows."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.uniform_(0.8, 1.2)
            module.bias.normal_(0, 0.1)
    network.eval()


def data(folder: Path, task: str, count: int = 8, size: int = 64) -> Path:
    """`count` images with one coloured rectangle each, for both splits; the data.yaml, or the folder to classify."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(count):
            label = number % 2
            left, top = generator.integers(4, size // 3, 2)
            right, bottom = left + generator.integers(12, size // 2 - 4), top + generator.integers(12, size // 3)
            image = Image.new("RGB", (size, size * 3 // 4), (120, 120, 120))  # oblong: batches are padded
            ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill=COLOURS[label])
            box = np.array([left, top, right, bottom]) / (size, size * 3 // 4, size, size * 3 // 4)
            if task == "classify":
                place = folder / split / NAMES[label] / f"{number}.png"
            else:
                place = folder / "images" / split / f"{number}.png"
                row = folder / "labels" / split / f"{number}.txt"
                row.parent.mkdir(parents=True, exist_ok=True)
                row.write_text(" ".join(map(str, [label, *_row(task, *box)])) + "\n")
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
    if task == "classify":
        return folder
    lines = ["train: images/train", "val: images/val", "names: {0: red, 1: blue}"]
    lines += ["kpt_shape: [17, 3]", f"flip_idx: {list(range(17))}"] if task == "pose" else []
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")
    return folder / "data.yaml"


def _row(task: str, left: float, top: float, right: float, bottom: float) -> list[float]:
    """What a line of labels says after its class, for this rectangle."""
    corners = [left, top, right, top, right, bottom, left, bottom]
    box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    points = np.stack([np.linspace(left, right, 17), np.linspace(top, bottom, 17), np.full(17, 2)], axis=1)
    return {"detect": box, "segment": corners, "obb": corners, "pose": [*box, *points.ravel().tolist()]}[task]


def halved(opened: Opened, seed: int = 0) -> dcodp.PrunePlan:
    """A plan that takes half of every group, by chance."""
    graph = UltralyticsNet("net", opened.network, ("a", "b")).coupling_graph(SIZE)
    generator = torch.Generator().manual_seed(seed)
    return dcodp.select(graph, {g.name: torch.rand(g.channels, generator=generator) for g in graph.groups}, ratio=0.5)


def written(folder: Path, opened: Opened, plan: dcodp.PrunePlan) -> Path:
    """The net that the plan leaves, as small.pt and small.safetensors."""
    small = dcodp.prune(opened.network, plan)
    mark(small, opened.description, plan if opened.plan is None else opened.plan.then(plan), {"imgsz": SIZE})
    folder.mkdir(parents=True, exist_ok=True)
    write_pt(small, folder / "small.pt", {"task": opened.task, "imgsz": SIZE})
    write_safetensors(small, folder / "small.safetensors")
    return folder / "small.pt"
