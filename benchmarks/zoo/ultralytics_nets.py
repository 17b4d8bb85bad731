"""Every YAML file of ultralytics that can be built without a download, each at its smallest scale."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from zoo.entry import Architecture

# Without a peer: torch-pruning takes a minute for many of them, and the first eighteen say it all.
DETECTORS = ("yolo12n", "yolo26n", "yolov9s", "yolov9m", "yolov9e", "yolov10s", "yolov10m", "yolov10b", "yolov10l",
             "yolov10x", "yolov3-tiny", "yolov3-spp", "yolov5n-p6", "yolov8n-p2", "yolov8n-p6", "yolov8n-ghost",
             "yolov8n-ghost-p2", "yolov8n-ghost-p6", "yolo26n-p2", "yolo26n-p6")  # fmt: skip
TASKS = ("yolov8n-seg-p6", "yolov8n-pose-p6", "yolov9c-seg", "yolov9e-seg", "yolo11n-seg", "yolo11n-pose",
         "yolo11n-obb", "yolo12n-seg", "yolo12n-pose", "yolo12n-obb", "yolo26n-seg", "yolo26n-pose",
         "yolo26n-obb")  # fmt: skip
OPEN_VOCABULARY = ("yoloe-v8n", "yoloe-v8n-seg", "yoloe-11n", "yoloe-11n-seg", "yoloe-26n", "yoloe-26n-seg",
                   "yolov8n-world", "yolov8n-worldv2")  # fmt: skip
CLASSIFIERS = ("yolov8n-cls", "yolov8n-cls-resnet50", "yolov8n-cls-resnet101", "yolo11n-cls", "yolo12n-cls",
               "yolo26n-cls")  # fmt: skip
DOWNLOADS = "yolo11-cls-resnet18"
DENSE = ("yolo26n-depth", "yolo26n-sem")
TRANSFORMERS = ("rtdetr-x", "rtdetr-resnet50", "rtdetr-resnet101", "yolov8n-rtdetr")


def _net(name: str, task: str | None = None, **options: Any) -> Architecture:
    def build() -> nn.Module:
        from dcodp import _ultralytics

        _ultralytics.prepare()
        from ultralytics.nn import tasks

        if task is not None:
            return getattr(tasks, task)(f"{name}.yaml", verbose=False)
        from ultralytics import YOLO

        return YOLO(f"{name}.yaml", verbose=False).model  # type: ignore[return-value]

    options = {"size": 64, "first_result": True, "ignored": ("head",), "needs": "ultralytics", **options}
    return Architecture(name, "ultralytics", build, **options)


def _without_weights() -> nn.Module:
    """A description that asks for weights from the net, which the proof has no use for."""
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.nn import tasks

    tree: Any = tasks.yaml_model_load(f"{DOWNLOADS}.yaml")
    tree["backbone"][0][3][2] = None
    return tasks.ClassificationModel(tree, verbose=False)


def _pixels(name: str) -> int:
    """Twice as many where a sixth level would see one pixel."""
    return 128 if name.endswith("-p6") else 64


def ultralytics_nets() -> list[Architecture]:
    """The first ones are compared with torch-pruning too, at 128 pixels."""
    yolos = ("yolov3", "yolov5n", "yolov6n", "yolov8n", "yolov8s", "yolov8m", "yolov9t", "yolov9c", "yolov10n",
             "yolo11n", "yolo12n", "yolo26n")  # fmt: skip
    tasks = {"yolov8n-seg": "SegmentationModel", "yolov8n-pose": "PoseModel", "yolov8n-obb": "OBBModel"}
    more = [name for name in DETECTORS if name not in yolos]
    rtdetr = "RTDETRDetectionModel"
    return [
        *(_net(name, "DetectionModel", size=128, convolutional_detector=True) for name in yolos),
        *(_net(name, task, size=128, convolutional_detector=True) for name, task in tasks.items()),
        _net("rtdetr-l", rtdetr, size=128),
        *(_net(name, convolutional_detector=True, peer=False, size=_pixels(name)) for name in (*more, *TASKS)),
        *(_net(name, peer=False) for name in OPEN_VOCABULARY + CLASSIFIERS),
        dataclasses.replace(_net(DOWNLOADS, peer=False), build=_without_weights),
        *(_net(name, peer=False, first_result=False) for name in DENSE),
        *(_net(name, rtdetr, peer=False, size=128) for name in TRANSFORMERS),
    ]
