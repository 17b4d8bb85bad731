"""RetinaNet (torchvision's) as a `Detector`: what a further detector of torchvision costs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.imitation import binary_divergence, weighted_mean
from dcodp.detectors.torchvision_common import HEAD, NarrowResNet, OneHeadDetector, Said, load_all, make_network

ROWS = {"head.classification_head.cls_logits": Layout(blocks=9)}  # 9 anchors per place


class RetinaNetDetector(OneHeadDetector):
    """Losses: `classification` (focal) and `bbox_regression`. There is no background class."""

    def imitation(self, outputs: Said, lesson: Said) -> dict[str, Tensor]:
        """ "classification" and "bbox_regression" (L1) over all anchors, weighted by the highest class probability that
        the dense net gives each."""
        found, taught = (said.calls[HEAD][1] for said in (outputs, lesson))
        logits, wanted = found["cls_logits"], taught["cls_logits"]  # [B, N, C]
        weights = wanted.float().sigmoid().amax(2)
        boxes = (found["bbox_regression"].float() - taught["bbox_regression"].float()).abs().sum(2)
        return {
            "classification": weighted_mean(binary_divergence(logits, wanted).sum(2), weights),
            "bbox_regression": weighted_mean(boxes, weights),
        }


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Variants: `resnet50_fpn`, with frozen batch norms where weights are given, `resnet50_fpn_v2`, and `tiny_test` for
    tests. Raises InputError for what does not fit.
    """
    network = make_network(model, classes, BUILDERS, frozen=("resnet50_fpn", "tiny_test"))
    detector = RetinaNetDetector(model.name, network, classes)
    return detector, load_all(detector, model, ROWS)


def _torchvision(name: str) -> Any:
    return lambda classes: getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes)


def _tiny(classes: int) -> RetinaNet:
    layers = {f"layer{i}": str(i - 2) for i in range(2, 5)}
    backbone = BackboneWithFPN(NarrowResNet(), layers, [64, 128, 256], 32, LastLevelP6P7(32, 32))
    sizes = tuple((side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))) for side in (8, 16, 32, 64, 128))
    return RetinaNet(backbone, classes, anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5))


BUILDERS = {
    "resnet50_fpn": _torchvision("retinanet_resnet50_fpn"),
    "resnet50_fpn_v2": _torchvision("retinanet_resnet50_fpn_v2"),
    "tiny_test": _tiny,
}
