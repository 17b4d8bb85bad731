"""torchvision's classifiers and detectors, and the YOLOv7 of this project."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import detection

from dcodp.detectors.families.yolov7.network import yolov7
from dcodp.detectors.torchvision_common import freeze_batch_norms
from zoo.entry import Architecture


def _classifier(name: str, size: int = 128, **options: Any) -> Architecture:
    def build() -> nn.Module:
        return getattr(models, name)(weights=None, **options)

    return Architecture(name, "torchvision", build, size, ignored=("classifier",))


def _detector(name: str, frozen: bool = False, size: int = 128, **options: Any) -> Architecture:
    """A torchvision detector at `size` pixels, with few proposals so that the heads on the CPU do not take minutes."""

    def build() -> nn.Module:
        network = getattr(detection, name)(weights=None, weights_backbone=None)
        if not name.startswith("ssd"):
            network.transform.min_size, network.transform.max_size = (size,), size
        if hasattr(network, "rpn"):
            network.rpn._pre_nms_top_n = {"training": 200, "testing": 200}
            network.rpn._post_nms_top_n = {"training": 50, "testing": 50}
        if frozen:
            freeze_batch_norms(network)
        return network

    label = f"{name}, frozen batch norm" if frozen else name
    return Architecture(label, "torchvision detection", build, size, takes_list=True, **options)


def _faster_rcnn(name: str, frozen: bool) -> Architecture:
    heads = ("rpn.head", "roi_heads.box_predictor")
    ignored = ("rpn.head.cls_logits", "rpn.head.bbox_pred", "backbone.fpn", "roi_heads")
    return _detector(name, frozen, heads=heads, ignored=ignored, convolutional_detector=True)


def torchvision_nets() -> list[Architecture]:
    rcnns = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn")
    classifiers = ("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
                   "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "regnet_x_400mf",
                   "shufflenet_v2_x1_0")  # fmt: skip
    return [
        Architecture("yolov7", "dcodp", lambda: yolov7(80), 128, True, ignored=("head",), convolutional_detector=True),
        *(_faster_rcnn(name, frozen) for name in rcnns for frozen in (False, True)),
        _detector("retinanet_resnet50_fpn", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("retinanet_resnet50_fpn_v2", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("fcos_resnet50_fpn", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("ssd300_vgg16", size=300, heads=("head",), ignored=("head",)),
        _detector("ssdlite320_mobilenet_v3_large", size=320, heads=("head",), ignored=("head",)),
        *(_classifier(name) for name in classifiers),
        *(replace(_classifier(name), least_removed=0.70) for name in ("convnext_tiny", "swin_t")),
        _classifier("swin_v2_t"),
        _classifier("vit_b_16", 96, image_size=96),
    ]
