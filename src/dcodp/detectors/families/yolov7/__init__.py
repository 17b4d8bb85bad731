"""YOLOv7 P5, written from the paper (Wang, Bochkovskiy, Liao: arXiv 2207.02696)."""

from dcodp.detectors.families.yolov7.adapter import YOLOv7Detector, build
from dcodp.detectors.families.yolov7.network import YOLOv7, fuse, yolov7

__all__ = ["YOLOv7", "YOLOv7Detector", "build", "fuse", "yolov7"]
