"""Accuracy by ultralytics' own validator, and size and speed, as the blocks of a record."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp import _ultralytics
from dcodp.evaluation.complexity import count_flops, count_parameters
from dcodp.yolo.images import Images, place_font

PATIENCE = 60.0  # seconds of non-maximum suppression for each image, after which ultralytics gives up with a warning


def accuracy(
    network: nn.Module | Path, kind: str, task: str, images: Images, split: str, size: int, batch: int, folder: Path
) -> dict[str, Any]:
    """Of a net, or of an exported file: `map50`, `map50_95`, `ap75`, `per_class` of the task's last metric (masks,
    keypoints, else boxes); of a classifier `top1` and `top5`. Those of a record that ultralytics does not compute are
    None. `kind`: the net's class in ultralytics.nn.tasks.
    """
    _ultralytics.prepare()
    place_font()
    found = _validated(network, kind, task, images, split, size, batch, folder)
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


def _validated(
    network: nn.Module | Path, kind: str, task: str, images: Images, split: str, size: int, batch: int, folder: Path
) -> Any:
    from ultralytics.models import yolo
    from ultralytics.models.rtdetr.val import RTDETRValidator

    kinds: dict[str, Any] = {
        "detect": RTDETRValidator if kind == "RTDETRDetectionModel" else yolo.detect.DetectionValidator,
        "segment": yolo.segment.SegmentationValidator,
        "pose": yolo.pose.PoseValidator,
        "obb": yolo.obb.OBBValidator,
        "classify": yolo.classify.ClassificationValidator,
    }
    arguments = {
        "task": task, "mode": "val", "data": str(images.data), "split": split, "imgsz": size, "batch": batch,
        "plots": False, "verbose": False, "workers": 0, "project": str(folder), "name": "val", "exist_ok": True,
        "rect": True,  # as YOLO(…).val() does: images are padded to their batch's shape; exported files take squares
        "device": "cpu" if isinstance(network, Path) else _device(network),
    }  # fmt: skip
    validator = kinds[task](args=arguments, save_dir=folder / "val")
    with _patient():
        validator(model=str(network) if isinstance(network, Path) else _own(network, validator))
    return validator.metrics


def _own(network: nn.Module, validator: Any) -> Any:
    """A copy, since the validator folds batch norms."""
    net: Any = copy.deepcopy(network)
    if not isinstance(getattr(net, "args", None), dict):
        net.args = dict(vars(validator.args))
    return net


@contextmanager
def _patient() -> Iterator[None]:
    """Within, non-maximum suppression looks at all images, however slow the machine is."""
    from ultralytics.utils import nms

    before = nms.non_max_suppression
    nms.non_max_suppression = partial(before, max_time_img=PATIENCE)
    try:
        yield
    finally:
        nms.non_max_suppression = before


def _device(network: nn.Module) -> str:
    device = next(network.parameters()).device
    return "cpu" if device.type == "cpu" else str(device.index or 0)


@torch.no_grad()
def cost(network: nn.Module, inputs: tuple[Any, ...]) -> dict[str, Any]:
    """`parameters`, and `flops` for one image (2 per multiply-accumulate)."""
    return {"parameters": count_parameters(network), "flops": count_flops(network, inputs)}
