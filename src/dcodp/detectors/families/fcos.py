"""FCOS (torchvision's, arXiv 1904.01355) as a `Detector`: one box at each place, without anchors to choose from."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.imitation import binary_divergence, weighted_mean
from dcodp.detectors.torchvision_common import HEAD, NarrowResNet, OneHeadDetector, Said, load_all, make_network

WIDTH = 64  # of the tiny pyramid: two channels in each of the head's 32 groups of normalisation

ROWS = {"head.classification_head.cls_logits": Layout()}  # one box per place


class FCOSDetector(OneHeadDetector):
    """Losses: `classification` (focal), `bbox_regression` (generalised IoU) and `bbox_ctrness`, how central a place is
    in its object. There is no background class."""

    def imitation(self, outputs: Said, lesson: Said) -> dict[str, Tensor]:
        """ "classification", "bbox_regression" (L1 of the distances to the four sides, in strides) and "bbox_ctrness"
        over all places, weighted by the highest class probability that the dense net gives each."""
        found, taught = (said.calls[HEAD][1] for said in (outputs, lesson))
        logits, wanted = found["cls_logits"], taught["cls_logits"]  # [B, N, C]
        weights = wanted.float().sigmoid().amax(2)
        boxes = (found["bbox_regression"].float() - taught["bbox_regression"].float()).abs().sum(2)
        central = binary_divergence(found["bbox_ctrness"], taught["bbox_ctrness"]).squeeze(2)  # [B, N]
        return {
            "classification": weighted_mean(binary_divergence(logits, wanted).sum(2), weights),
            "bbox_regression": weighted_mean(boxes, weights),
            "bbox_ctrness": weighted_mean(central, weights),
        }


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Variants: `resnet50_fpn`, with frozen batch norms where weights are given, and `tiny_test` for tests. Raises
    InputError for what does not fit.
    """
    network = make_network(model, classes, BUILDERS, frozen=("resnet50_fpn", "tiny_test"))
    detector = FCOSDetector(model.name, network, classes)
    return detector, load_all(detector, model, ROWS)


def _resnet50_fpn(classes: int) -> Any:
    return detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)


def _tiny(classes: int) -> FCOS:
    layers = {f"layer{i}": str(i - 2) for i in range(2, 5)}
    backbone = BackboneWithFPN(NarrowResNet(), layers, [64, 128, 256], WIDTH, LastLevelP6P7(WIDTH, WIDTH))
    return FCOS(backbone, classes, head=FCOSHead(WIDTH, 1, classes, num_convs=2))


BUILDERS = {"resnet50_fpn": _resnet50_fpn, "tiny_test": _tiny}
