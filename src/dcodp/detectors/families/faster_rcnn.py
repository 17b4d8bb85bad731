"""Faster R-CNN with a feature pyramid (torchvision's) as a `Detector`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.torchvision_common import NarrowResNet, TorchvisionDetector, load_all, make_network, temporarily
from dcodp.graph.tracing import result_tensors

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

    def compared(self, images: Tensor) -> list[Tensor]:
        """What the region proposal network says at every anchor."""
        return result_tensors(self.network.rpn.head(self.features(images)))  # type: ignore[operator, union-attr]

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
