"""Faster R-CNN with a feature pyramid (torchvision's) as a `Detector`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.torchvision_common import NarrowResNet, TorchvisionDetector, load_all, make_network, temporarily

PREDICTOR = "roi_heads.box_predictor"
ROWS = {  # the background comes first
    f"{PREDICTOR}.cls_score": Layout(fixed=1),
    f"{PREDICTOR}.bbox_pred": Layout(fixed=1, values=4),
}


class FasterRCNNDetector(TorchvisionDetector):
    """Losses: `loss_classifier`, `loss_box_reg`, `loss_objectness`, `loss_rpn_box_reg`."""

    first_label = 1

    def thresholds(self) -> Any:
        return self.network.roi_heads

    @contextmanager
    def most_work(self) -> Iterator[None]:
        """As many proposals as the RoI head is ever given: none dropped for overlap, size or score."""
        with temporarily(self.network.rpn, nms_thresh=1.0, score_thresh=0.0, min_size=-1.0):
            yield


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Variants: `resnet50_fpn`, `resnet50_fpn_v2`, `mobilenet_v3_large_fpn`, and `tiny_test` for tests. As in torchvision
    the first and third have frozen batch norms where weights are given. Raises InputError for what does not fit.
    """
    network = make_network(model, classes, BUILDERS, frozen=("resnet50_fpn", "mobilenet_v3_large_fpn", "tiny_test"))
    detector = FasterRCNNDetector(model.name, network, classes)
    return detector, load_all(detector, model, ROWS)


@torch.no_grad()
def raw_outputs(network: nn.Module, *inputs: Any) -> dict[str, list[Tensor]]:
    """What the heads say before any proposal or detection is dropped, for comparing two networks.

    "objectness" and "proposals" [B, A or 4A, H, W] per level, "classes" [R, C + 1] and "boxes" [R, 4 (C + 1)] of the
    R proposals of all images.
    """
    seen: dict[str, list[Tensor]] = {}

    def keep(*names: str) -> Any:
        def hook(module: nn.Module, args: Any, outputs: Any) -> None:
            for name, output in zip(names, outputs, strict=True):
                seen[name] = list(output) if isinstance(output, list | tuple) else [output]

        return hook

    heads: Any = network
    handles = [
        heads.rpn.head.register_forward_hook(keep("objectness", "proposals")),
        heads.roi_heads.box_predictor.register_forward_hook(keep("classes", "boxes")),
    ]
    try:
        network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _torchvision(name: str) -> Any:
    """One of torchvision's own builders, its weights left out; the background counts as a class there."""
    return lambda classes: getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes + 1)


def _tiny(classes: int) -> FasterRCNN:
    """Narrow in every part and with few proposals: a training step at 96 pixels takes a fraction of a second."""
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(NarrowResNet(), layers, [32, 64, 128, 256], 32)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=20,
        box_head=TwoMLPHead(32 * 7 * 7, 64),
        box_predictor=FastRCNNPredictor(64, classes + 1),
        box_batch_size_per_image=32,
    )


BUILDERS = {
    **{name: _torchvision(f"fasterrcnn_{name}") for name in ("resnet50_fpn", "resnet50_fpn_v2")},
    "mobilenet_v3_large_fpn": _torchvision("fasterrcnn_mobilenet_v3_large_fpn"),
    "tiny_test": _tiny,
}
