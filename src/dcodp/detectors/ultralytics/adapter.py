"""A net of ultralytics as a `Detector`: every YOLO and RT-DETR of that package, whatever its task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from dcodp import _ultralytics
from dcodp.data.types import Batch, Detections
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.comparing import prediction_distance
from dcodp.detectors.imitation import (
    binary_divergence,
    categorical_divergence,
    plain_mean,
    unexplained,
    weighted_mean,
)
from dcodp.detectors.merging import merge
from dcodp.detectors.nms import non_maximum_suppression
from dcodp.detectors.parallel import mean_over_processes
from dcodp.detectors.ultralytics.description import Description, build

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}  # the paper's, section 4; also ultralytics' defaults
PASSED_ALONG = "feats"  # what a head's raw predictions hold besides predictions: the neck's maps, which are pruned
HEADS = ("one2many", "one2one")  # of an end-to-end detector


class UltralyticsNet(Detector):
    """`network` is one of ultralytics' models: images [B, 3, S, S] in 0…1 → (predictions, raw predictions) in eval
    mode, raw predictions alone in train mode. Predictions of a YOLO that needs non-maximum suppression are
    [B, 4 + C, N] (cx, cy, w, h in input pixels, one probability per class), of an end-to-end one [B, K, 6]."""

    description: Description | None = None  # of the dense architecture, where it was built from one
    _criterion: tuple[nn.Module, torch.device, Any] | None = None

    @property
    def head(self) -> Any:
        network: Any = self.network
        return network.model[-1]

    @property
    def is_transformer(self) -> bool:
        return type(self.network).__name__ == "RTDETRDetectionModel"

    @property
    def is_end_to_end(self) -> bool:
        return bool(getattr(self.head, "end2end", False))

    @property
    def comparable(self) -> bool:
        """A transformer's queries are chosen by each net anew."""
        return not self.is_transformer

    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Tensor]:
        weight = next(self.network.parameters())
        noise = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        return (noise.to(weight),)

    def outputs(self, result: Any) -> Any:
        """The predictions; of heads that have more to train than these show (end-to-end ones' other half, what a task
        adds), the raw ones too."""
        if not isinstance(result, tuple):
            return result
        alone = isinstance(result[0], Tensor) and not _further(result[1])
        return result[0] if alone else (result[0], _without_maps(result[1]))

    def compared(self, images: Tensor) -> list[Tensor]:
        """Predictions [B, 4 + C + …, N] before any of them is chosen, of each half of an end-to-end head; then whatever
        else a task predicts. Of a classifier its logits."""
        if self.is_transformer:
            return super().compared(images)
        raw = self.network(self.scaled(images))[1]
        if isinstance(raw, Tensor):
            return [raw]
        with _decoding_centres(self.head):
            parts = [part for part in _halves(raw) if part]
            decoded = [self.head._inference(part) for part in parts]
        return [*decoded, *(t for part in parts for t in _beyond_boxes(part).values())]

    def losses_on(self, images: Tensor) -> Callable[[nn.Module], float]:
        return super().losses_on(self.scaled(images))  # once for all networks

    def distance(self, mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """As `prediction_distance`, the mean over the halves of an end-to-end head; shares of what is unexplained for
        the rest."""
        classes = self.head.nc if hasattr(self.head, "nc") else 0
        found = []
        for a, b in zip(mine, theirs, strict=True):
            if a.dim() == 3 and a.shape[1] >= 4 + classes and not self.is_transformer:
                parts = (t[:, :4].mT for t in (a, b)), (t[:, 4 : 4 + classes].mT for t in (a, b))
                (boxes, wanted), (scores, sure) = parts
                found.append(prediction_distance(boxes, scores, wanted, sure))
            else:
                found.append(unexplained(a[None], b[None], 0))
        return torch.stack(found).mean()

    def prepared(self, batch: Batch) -> Batch:
        images = batch.images.contiguous(memory_format=torch.channels_last)  # while they are bytes
        return dataclasses.replace(batch, images=self.scaled(images))

    def training_outputs(self, batch: Batch) -> Any:
        """The head's raw predictions, as ultralytics' losses take them."""
        images = self.scaled(batch.images)
        if self.is_transformer:
            network: Any = self.network
            return network.predict(images, batch=_targets(batch) if self.network.training else None)
        return self.network(images)

    def loss_from(self, outputs: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Ultralytics' loss of the task, each part after its gain. Its sum is this mean times the number of images."""
        criterion, targets = self._loss(), _targets(batch)
        if self.is_transformer:
            network: Any = self.network
            network.criterion = criterion
            try:
                total, parts = network.loss({**targets, "img": batch.images}, preds=outputs)
            finally:
                network.criterion = None
            return total, {k.removesuffix("_loss"): v for k, v in parts.items()}
        with _assigned(criterion) as assigned:
            total, parts = criterion(outputs, targets)
        # It divides by the sum of the assigned scores, at least 1; in a shared batch that of all processes counts.
        share = assigned[0].clamp(min=1) / mean_over_processes(assigned[0], least_total=1.0) if assigned else 1.0
        # What it names is detached; its total holds the same, part by part.
        values = total / len(batch.images) if total.numel() == len(parts) else torch.stack(list(parts.values()))
        named = {name.removesuffix("_loss"): share * value for name, value in zip(parts, values, strict=True)}
        return share * total.sum() / len(batch.images), named

    @torch.no_grad()
    def lesson(self, batch: Batch, outputs: Any) -> Any:
        with _undecoded(self.head):
            result = self.network(self.scaled(batch.images))
        return result[1] if isinstance(result, tuple) else result

    def imitation(self, outputs: Any, lesson: Any) -> dict[str, Tensor]:
        """ "cls": of all class probabilities; "dfl": of the four sides' distributions; each after the loss' gain.

        Both are means over places, weighted by the highest class probability that the dense net gives each, and over
        the halves of an end-to-end head. "extra": what else a task predicts. A transformer's queries have no
        counterparts; its maps alone are compared.
        """
        if self.is_transformer:
            return {}
        if isinstance(lesson, Tensor):
            return {"cls": plain_mean(categorical_divergence(outputs, lesson, 1))}
        halves = [(found, taught) for found, taught in zip(_halves(outputs), _halves(lesson), strict=True) if taught]
        said = [_half(found, taught) for found, taught in halves]
        return {name: torch.stack([part[name] for part in said]).mean() for name in said[0]}

    def merged(self, network: nn.Module) -> nn.Module:
        from ultralytics.nn.modules import Conv

        for block in network.modules():
            if isinstance(block, Conv) and type(block).forward is Conv.forward:
                merge(block)
        return network

    def in_shapes_of(self, other: Detector) -> Detector:
        known = getattr(other, "description", None)
        return self if known is None else self.with_network(build(known))

    @torch.no_grad()
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        found = self.network(self.scaled(images))[0]
        if self.is_transformer or self.is_end_to_end:
            return [self._chosen(rows, images.shape[-1], settings) for rows in found]
        raw = found.transpose(1, 2)  # [B, N, 4 + C]
        centre, size, scores = raw.split((2, 2, raw.shape[2] - 4), dim=2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=2)
        return non_maximum_suppression(boxes, scores, settings)

    def _chosen(self, rows: Tensor, side: int, settings: DecodeSettings) -> Detections:
        """Rows [K, 6] that the head has chosen itself: xmin, ymin, xmax, ymax in pixels, of a transformer cx, cy, w, h
        as shares of the image; then probability and class."""
        boxes, scores, labels = rows[:, :4], rows[:, 4], rows[:, 5].long()
        if self.is_transformer:
            centre, size = boxes[:, :2] * side, boxes[:, 2:] * side
            boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
        order = scores.argsort(descending=True)[: settings.max_detections]
        order = order[scores[order] > settings.confidence]
        return Detections(boxes[order], scores[order], labels[order])

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 → the network's dtype, device and range 0…1; numbers that are in that range already stay."""
        scaled = images.to(next(self.network.parameters()))
        return scaled / 255 if images.dtype == torch.uint8 else scaled

    def _loss(self) -> Any:
        """Ultralytics' loss for the present network on its present device (it keeps strides and device inside)."""
        device = next(self.network.parameters()).device
        if self._criterion is None or self._criterion[0] is not self.network or self._criterion[1] != device:
            self._criterion = (self.network, device, self._new_loss())
        return self._criterion[2]

    def _new_loss(self) -> Any:
        """With the gains and, where a loss asks for more, all other settings at ultralytics' defaults."""
        _ultralytics.prepare()
        from ultralytics.cfg import get_cfg

        network: Any = self.network
        before = getattr(network, "args", None)
        network.args = get_cfg(overrides=dict(GAINS))
        try:
            return network.init_criterion()
        finally:
            network.args = before


def _targets(batch: Batch) -> dict[str, Any]:
    counts = torch.bincount(batch.image_index.long(), minlength=len(batch.images)).tolist()
    return {"batch_idx": batch.image_index, "cls": batch.labels, "bboxes": batch.boxes, "gt_groups": counts}


@contextmanager
def _assigned(criterion: Any) -> Iterator[list[Tensor]]:
    """Within, the sums of the scores that a loss' own assigner gives; nothing of losses made of several."""
    found: list[Tensor] = []
    assigner = getattr(criterion, "assigner", None)
    if assigner is None:
        yield found
        return
    handle = assigner.register_forward_hook(lambda _module, _args, result: found.append(result[2].sum()))
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def _decoding_centres(head: Any) -> Iterator[None]:
    """Within, boxes are decoded to cx, cy, w, h also by an end-to-end head, which otherwise gives corners."""
    before = getattr(head, "_end2end", None)
    if before is not None:
        head._end2end = False
    try:
        yield
    finally:
        if before is not None:
            head._end2end = before


@contextmanager
def _undecoded(head: Any) -> Iterator[None]:
    """Within, a detection head in eval mode gives its raw predictions alone; the layers in it stay in eval mode. Heads
    of other tasks predict other things in training."""
    from ultralytics.nn.modules.head import Detect, v10Detect

    alone = type(head) in (Detect, v10Detect)
    before = head.training
    head.training = before or alone  # its own flag, which its forward reads
    try:
        yield
    finally:
        head.training = before


def _halves(raw: Any) -> list[dict[str, Tensor]]:
    """The raw predictions of each head."""
    return [raw[name] for name in HEADS if name in raw] if any(name in raw for name in HEADS) else [raw]


def _further(raw: Any) -> bool:
    """Whether raw predictions hold more than boxes and scores."""
    return not isinstance(raw, dict) or bool(raw.keys() - {"boxes", "scores", PASSED_ALONG})


def _without_maps(raw: Any) -> Any:
    if not isinstance(raw, dict):
        return [t for t in tree_flatten(raw)[0] if isinstance(t, Tensor)]
    return {k: _without_maps(v) if isinstance(v, dict) else v for k, v in raw.items() if k != PASSED_ALONG}


def _beyond_boxes(raw: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a task predicts besides boxes and classes: mask coefficients and prototypes, keypoints, angles."""
    return {k: v for k, v in raw.items() if k not in ("boxes", "scores", PASSED_ALONG) and isinstance(v, Tensor)}


def _half(found: dict[str, Tensor], taught: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = taught["scores"].float().amax(1).sigmoid()  # [B, N]
    parts = {"cls": binary_divergence(found["scores"], taught["scores"]).sum(1)}
    bins = taught["boxes"].shape[1] // 4
    said, wanted = (maps["boxes"].unflatten(1, (4, bins)) for maps in (found, taught))  # [B, 4, bins, N]
    if bins > 1:
        parts["dfl"] = categorical_divergence(said, wanted, 2).mean(1)
    else:  # distances in cells themselves
        parts["dfl"] = (said - wanted).abs().float().mean((1, 2))
    named = {name: GAINS[name] * weighted_mean(values, weights) for name, values in parts.items()}
    extra = [unexplained(_first(found[k])[None], v[None], 0) for k, v in _beyond_boxes(taught).items() if k in found]
    return named | ({"extra": torch.stack(extra).mean()} if extra else {})


def _first(value: Any) -> Tensor:
    """What a head predicts by this name; in training some give it together with what only their loss looks at."""
    return value[0] if isinstance(value, tuple | list) else value
