"""SSD (torchvision's, arXiv 1512.02325, and SSDlite, arXiv 1801.04381) as a `Detector`.

Torchvision stretches every image to 300 or 320 pixels; here it comes letterboxed, in a size that strides of 32 divide:
320 is what both were trained for, or next to it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torchvision.models import detection
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.imitation import categorical_divergence, weighted_mean
from dcodp.detectors.torchvision_common import HEAD, NarrowResNet, OneHeadDetector, Rows, Said, load_all, make_network
from dcodp.errors import InputError

CLASSES = "head.classification_head.module_list"
SMALLEST = {"ssd300_vgg16": 288}  # pixels: in less, its last convolutions, without padding, have nothing to read


class SSDDetector(OneHeadDetector):
    """Losses: `classification` (cross entropy, hard negatives) and `bbox_regression` (smooth L1), both over the number
    of anchors that match an object in the batch."""

    first_label = 1
    smallest = 32  # pixels

    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Any, ...]:
        self._require(image_size)
        return super().example_inputs(image_size, batch)

    def imitation(self, outputs: Said, lesson: Said) -> dict[str, Tensor]:
        """ "classification" and "bbox_regression" (smooth L1) over all anchors, weighted by the highest probability of
        an object's class that the dense net gives each."""
        found, taught = (said.calls[HEAD][1] for said in (outputs, lesson))
        logits, wanted = found["cls_logits"], taught["cls_logits"]  # [B, N, 1 + C], the background first
        weights = wanted.float().softmax(2)[..., 1:].amax(2)
        deltas = (said["bbox_regression"].float() for said in (found, taught))  # [B, N, 4]
        return {
            "classification": weighted_mean(categorical_divergence(logits, wanted, 2), weights),
            "bbox_regression": weighted_mean(smooth_l1_loss(*deltas, reduction="none").sum(2), weights),
        }

    def _inputs(self, images: Tensor) -> list[Tensor]:
        self._require(images.shape[-1])
        return super()._inputs(images)

    def _require(self, image_size: int) -> None:
        if image_size < self.smallest:
            raise InputError(f"image_size={image_size} is too small for {self.name}; use {self.smallest} or more")


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Variants: `ssd300_vgg16`, `ssdlite320_mobilenet_v3_large`, and `tiny_test` for tests. Raises InputError for what
    does not fit.
    """
    if model.backbone_weights is not None:
        raise InputError("model.backbone_weights does not apply to ssd; use model.weights")
    network: Any = make_network(model, classes, BUILDERS, frozen=())
    # Fixed steps are those of 300 pixels. Without, an anchor stands in the middle of its cell in images of any size.
    network.anchor_generator.steps = None
    detector = SSDDetector(model.name, network, classes)
    detector.smallest = SMALLEST.get(model.variant, detector.smallest)
    return detector, load_all(detector, model, class_rows(network))


def class_rows(network: Any) -> Rows:
    """One class layer for each level, the background first; in SSDlite it is the last of a few layers."""
    levels = network.anchor_generator.num_anchors_per_location()
    last = "" if isinstance(network.get_submodule(f"{CLASSES}.0"), nn.Conv2d) else ".1"
    return {f"{CLASSES}.{k}{last}": Layout(blocks=anchors, fixed=1) for k, anchors in enumerate(levels)}


def _torchvision(name: str) -> Any:
    return lambda classes: getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes + 1)


def _tiny(classes: int) -> SSD:
    backbone = IntermediateLayerGetter(NarrowResNet(), {f"layer{i}": str(i - 2) for i in range(2, 5)})
    anchors = DefaultBoxGenerator([[2], [2, 3], [2]], scales=[0.1, 0.3, 0.6, 1.0])
    return SSD(backbone, anchors, (96, 96), classes + 1)


BUILDERS = {
    **{name: _torchvision(name) for name in ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")},
    "tiny_test": _tiny,
}
