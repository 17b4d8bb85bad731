"""YOLOv7 as a detector of the pipeline."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from dcodp.config import ModelConfig
from dcodp.data.types import Batch, Detections
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.comparing import prediction_distance
from dcodp.detectors.families.yolov7.assign import assign_by_shape, assign_by_transport
from dcodp.detectors.families.yolov7.blocks import ConvBlock
from dcodp.detectors.families.yolov7.imitation import imitation
from dcodp.detectors.families.yolov7.loss import Gains, detection_loss
from dcodp.detectors.families.yolov7.network import YOLOv7, yolov7
from dcodp.detectors.families.yolov7.weights import load_weights
from dcodp.detectors.nms import non_maximum_suppression
from dcodp.errors import InputError

WIDTHS = {"base": 1.0, "tiny_test": 0.25}  # tiny_test: the same topology with a quarter of the channels


class YOLOv7Detector(Detector):
    """`assignment`: "transport" as the official training of P5, or "shape", the plain rule of YOLOv5."""

    network: YOLOv7

    def __init__(self, name: str, network: YOLOv7, classes: tuple[str, ...], assignment: str = "transport"):
        super().__init__(name, network, classes)
        self.assignment = assignment

    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Any, ...]:
        noise = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        return (noise.to(next(self.network.parameters())),)

    def outputs(self, result: Any) -> Any:
        """The decoded predictions [B, N, 5 + C]; the raw maps say the same once more."""
        return result[0]

    def distance(self, mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """As `prediction_distance`: predictions [B, N, 5 + C], a class's probability being that of its box times its
        own."""
        (a,), (b,) = mine, theirs
        return prediction_distance(a[..., :4], a[..., 4:5] * a[..., 5:], b[..., :4], b[..., 4:5] * b[..., 5:])

    def training_outputs(self, batch: Batch) -> list[Tensor]:
        """The head's raw maps: levels [B, A, H, W, 5 + C]."""
        return self.network(self._scaled(batch.images))

    def loss_from(self, outputs: list[Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        # The loss squares sigmoids and takes logarithms: half precision would underflow.
        with torch.autocast(batch.images.device.type, enabled=False):
            parts = self.loss_of([level.float() for level in outputs], batch)
        return torch.stack(list(parts.values())).sum(), parts

    def loss_of(self, raw: list[Tensor], batch: Batch) -> dict[str, Tensor]:
        """raw: levels [B, A, H, W, 5 + C] float32 → "box", "objectness", "classification", means over images."""
        targets = torch.cat([batch.image_index[:, None], batch.labels[:, None], batch.boxes], 1).float()
        head = self.network.head
        anchors = head.anchors.float()
        if self.assignment == "transport":
            matches = assign_by_transport(raw, targets, anchors, head.strides)
        else:
            matches = assign_by_shape(raw, targets, anchors)
        gains = Gains().scaled(len(self.classes), batch.images.shape[-1])
        return detection_loss(raw, targets, matches, anchors, gains)

    @torch.no_grad()
    def merged(self, network: nn.Module) -> nn.Module:
        for block in network.modules():
            if isinstance(block, ConvBlock):
                block.fuse()
        return network

    def lesson(self, batch: Batch, outputs: list[Tensor]) -> list[Tensor]:
        return self.network(self._scaled(batch.images))[1]

    def imitation(self, outputs: list[Tensor], lesson: list[Tensor]) -> dict[str, Tensor]:
        """See `dcodp.detectors.families.yolov7.imitation`; each part after the loss' gain."""
        gains = Gains().scaled(len(self.classes), outputs[0].shape[3] * self.network.head.strides[0])
        with torch.autocast(outputs[0].device.type, enabled=False):
            found, taught = ([level.float() for level in levels] for levels in (outputs, lesson))
            return imitation(found, taught, self.network.head.anchors.float(), gains)

    @torch.no_grad()
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        predictions = self.network(self._scaled(images))[0].float()
        boxes = box_convert(predictions[..., :4], "cxcywh", "xyxy")
        return non_maximum_suppression(boxes, predictions[..., 5:] * predictions[..., 4:5], settings)

    def _scaled(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] → 0 … 1 on the network's device and in its dtype."""
        return images.to(next(self.network.parameters())) / 255


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector and notes on how its weights were loaded. Raises InputError for bad variants and weights."""
    if model.variant not in WIDTHS:
        raise InputError(f"model.variant={model.variant} is no yolov7; use one of {', '.join(WIDTHS)}")
    if model.backbone_weights is not None:
        raise InputError("model.backbone_weights is not for YOLOv7; give model.weights, a checkpoint of the whole net")
    if not classes:
        raise InputError("the data set has no classes; give one with at least one class")
    network = yolov7(len(classes), WIDTHS[model.variant])
    detector = YOLOv7Detector(model.name, network, classes)
    return detector, [] if model.weights is None else load_weights(detector, model.weights)
