"""One adapter per detector: build, load weights, loss, predict, and which outputs matter."""

from dcodp.data.types import Batch, Detections
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.registry import build

__all__ = ["Batch", "DecodeSettings", "Detections", "Detector", "build"]
