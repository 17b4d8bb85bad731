"""Accuracy by ultralytics' own validator, and size and speed, as the blocks of a record."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp import _ultralytics
from dcodp.evaluation.complexity import count_flops, count_parameters
from dcodp.yolo.images import Images, place_font

log = logging.getLogger(__name__)
HOURS = 3600.0  # s per image that non-maximum suppression may take: by default it gives up on a slow CPU, silently


def accuracy(
    network: nn.Module, task: str, images: Images, split: str, size: int, batch: int, folder: Path
) -> dict[str, Any]:
    """`map50`, `map50_95`, `ap75`, `per_class` of the task's last metric (masks, keypoints, else boxes); of a
    classifier `top1` and `top5`. Those of a record that ultralytics does not compute are None."""
    _ultralytics.prepare()
    place_font()
    found = _validated(network, task, images, split, size, batch, folder)
    block: dict[str, Any] = dict.fromkeys(("ap75", "ap_small", "ap_medium", "ap_large"))
    block |= {"images": len(images.of(split)), "split": split}
    if task == "classify":
        return {**block, "map50": None, "map50_95": None, "top1": float(found.top1), "top5": float(found.top5)}
    metric = {"segment": "seg", "pose": "pose"}.get(task, "box")
    said = getattr(found, metric)
    names = found.names
    known = dict(zip(map(int, said.ap_class_index), said.maps[list(map(int, said.ap_class_index))], strict=True))
    per_class = {str(names[k]): (float(known[k]) if k in known else None) for k in names}
    block |= {
        "map50": float(said.map50),
        "map50_95": float(said.map),
        "ap75": float(said.map75),
        "per_class": per_class,
    }
    return block | ({} if metric == "box" else {"box_map50_95": float(found.box.map), "metric": metric})


def _validated(network: nn.Module, task: str, images: Images, split: str, size: int, batch: int, folder: Path) -> Any:
    from ultralytics.models import yolo
    from ultralytics.models.rtdetr.val import RTDETRValidator

    kinds: dict[str, Any] = {
        "detect": yolo.detect.DetectionValidator,
        "segment": yolo.segment.SegmentationValidator,
        "pose": yolo.pose.PoseValidator,
        "obb": yolo.obb.OBBValidator,
        "classify": yolo.classify.ClassificationValidator,
    }
    transformer = type(network).__name__ == "RTDETRDetectionModel"
    kind = RTDETRValidator if transformer else kinds[task]
    arguments = {
        "task": task, "mode": "val", "data": str(images.data), "split": split, "imgsz": size, "batch": batch,
        "plots": False, "verbose": False, "workers": 0, "project": str(folder), "name": "val", "exist_ok": True,
    }  # fmt: skip
    validator = kind(args={**arguments, "device": _device(network)}, save_dir=folder / "val")
    net: Any = copy.deepcopy(network)
    net.args = {**vars(validator.args)} if not isinstance(getattr(net, "args", None), dict) else net.args
    validator(model=net)
    return validator.metrics


def _device(network: nn.Module) -> str:
    device = next(network.parameters()).device
    return "cpu" if device.type == "cpu" else str(device.index or 0)


@torch.no_grad()
def cost(network: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """`parameters`, and `flops` for one image (2 per multiply-accumulate)."""
    return {"parameters": count_parameters(network), "flops": count_flops(network, inputs)}
