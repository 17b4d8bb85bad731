"""One adapter per detector: build, load weights, loss, predict, and which outputs matter."""

from dcodp.detectors.base import Batch, DecodeSettings, Detections, Detector
from dcodp.detectors.registry import build

__all__ = ["Batch", "DecodeSettings", "Detections", "Detector", "build"]
