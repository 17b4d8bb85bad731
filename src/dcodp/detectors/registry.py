"""Detector families by name."""

from __future__ import annotations

import importlib

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.errors import InputError

# family → module with `build(model, classes)`; imported when it is asked for, since each brings its own libraries
FAMILIES = {
    "faster_rcnn": "dcodp.detectors.faster_rcnn",
    "retinanet": "dcodp.detectors.retinanet",
    "yolov7": "dcodp.detectors.yolov7",
    "yolov8": "dcodp.detectors.yolov8",
}


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, on the CPU, and notes on what of its weights could not be used.

    Raises InputError for an unknown family and whatever the family refuses.
    """
    if model.family not in FAMILIES:
        raise InputError(f"model.family={model.family} is not known; use one of {', '.join(FAMILIES)}")
    return importlib.import_module(FAMILIES[model.family]).build(model, classes)
