"""Faster R-CNN with a feature pyramid (torchvision's) as a `Detector`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead

from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import Detector
from dcodp.detectors.class_rows import Layout
from dcodp.detectors.imitation import binary_divergence, categorical_divergence, plain_mean, weighted_mean
from dcodp.detectors.torchvision_common import (
    NarrowResNet,
    Said,
    TorchvisionDetector,
    load_all,
    make_network,
    temporarily,
)
from dcodp.graph.tracing import result_tensors

RPN, POOL, PREDICTOR = "rpn.head", "roi_heads.box_roi_pool", "roi_heads.box_predictor"
BETA = 1 / 9  # torchvision's, of the smooth L1 distance of boxes
ROWS = {  # the background comes first
    f"{PREDICTOR}.cls_score": Layout(fixed=1),
    f"{PREDICTOR}.bbox_pred": Layout(fixed=1, values=4),
}


class FasterRCNNDetector(TorchvisionDetector):
    """Losses: `loss_classifier`, `loss_box_reg`, `loss_objectness`, `loss_rpn_box_reg`."""

    first_label = 1
    heads = (RPN, POOL, PREDICTOR)

    def thresholds(self) -> Any:
        return self.network.roi_heads

    def compared(self, images: Tensor) -> list[Tensor]:
        """What the region proposal network says at every anchor."""
        return result_tensors(self.network.rpn.head(self.features(images)))  # type: ignore[operator, union-attr]

    @torch.no_grad()
    def lesson(self, batch: Batch, outputs: Said) -> Said:
        """The heads' answers; the RoI head is asked about the proposals that the other net's was asked about."""
        network: Any = self.network
        features = self._features(batch.images)
        _, proposals, sizes = outputs.calls[POOL][0]
        roi = network.roi_heads
        regions = roi.box_predictor(roi.box_head(roi.box_roi_pool(features, proposals, sizes)))
        return Said({}, {RPN: ((), network.rpn.head(list(features.values()))), PREDICTOR: ((), regions)})

    def imitation(self, outputs: Said, lesson: Said) -> dict[str, Tensor]:
        """RPN: "objectness" and "rpn_box_reg" over all anchors, weighted by the dense net's objectness; RoI head:
        "classifier" over all proposals, and "box_reg" over their classes, weighted by the dense net's probabilities."""
        found, taught = ([_anchors(*said.calls[RPN][1]), *said.calls[PREDICTOR][1]] for said in (outputs, lesson))
        (logits, deltas), classes, boxes = found
        (wanted, wanted_deltas), wanted_classes, wanted_boxes = taught
        seen, likely = wanted.sigmoid(), wanted_classes.float().softmax(1)
        return {
            "objectness": weighted_mean(binary_divergence(logits, wanted), seen),
            "rpn_box_reg": weighted_mean(_distance(deltas, wanted_deltas), seen),
            "classifier": plain_mean(categorical_divergence(classes, wanted_classes, 1)),
            "box_reg": weighted_mean(_by_class(boxes, wanted_boxes), likely[:, 1:]),
        }

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


def _anchors(objectness: list[Tensor], deltas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Levels [B, A, H, W] and [B, 4A, H, W] → logits [n] and deltas [n, 4] of all anchors, float32."""
    boxes = [level.unflatten(1, (-1, 4)).movedim(2, -1).reshape(-1, 4) for level in deltas]
    return torch.cat([level.flatten() for level in objectness]).float(), torch.cat(boxes).float()


def _by_class(boxes: Tensor, wanted: Tensor) -> Tensor:
    """Deltas [R, 4 (C + 1)] of both → [R, C]: how far apart they are for each class but the background."""
    found, taught = (deltas.float().unflatten(1, (-1, 4))[:, 1:] for deltas in (boxes, wanted))
    return _distance(found, taught)


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1 of deltas [..., 4], summed over the four."""
    return smooth_l1_loss(found, wanted, reduction="none", beta=BETA).sum(-1)


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
