"""What torchvision's detectors have in common: list inputs, targets in pixels, thresholds kept in a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import box_convert
from torchvision.ops.misc import FrozenBatchNorm2d

from dcodp.config import ModelConfig
from dcodp.data.types import Batch, Detections
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.checkpoint import read_state_dict
from dcodp.detectors.class_rows import COCO_CATEGORIES, Layout, match, with_rows
from dcodp.detectors.parallel import share_of_mean
from dcodp.errors import InputError
from dcodp.files.loading import load_strictly
from dcodp.graph.tracing import result_tensors

HEAD = "head"  # the module of detectors with one for everything
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Rows = dict[str, Layout]  # class layer → how its outputs are ordered


@dataclass(frozen=True)
class Said:
    """A training pass: torchvision's networks compute their losses themselves, and on the way call their heads."""

    losses: dict[str, Tensor]
    calls: dict[str, tuple[Any, Any]]  # module → arguments and result of its last call


class TorchvisionDetector(Detector):
    """`network` takes a list of images [3, S, S] in 0 … 1 and, in training, a list of target dictionaries."""

    first_label = 0  # torchvision's number for class 0; with 1 the background is 0
    heads: tuple[str, ...] = ()  # modules whose results another net can learn from

    def thresholds(self) -> Any:
        """The module with `score_thresh`, `nms_thresh` and `detections_per_img`."""
        return self.network

    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Any, ...]:
        noise = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        return (list(noise.to(next(self.network.parameters()))),)

    def outputs(self, result: Any) -> Any:
        """All of it: a list of dictionaries with boxes, labels and scores."""
        return result

    def features(self, images: Tensor) -> list[Tensor]:
        """The levels of the pyramid."""
        normalised, _ = self.network.transform(self._inputs(images))  # type: ignore[operator]
        return list(self.network.backbone(normalised.tensors).values())  # type: ignore[operator]

    def training_outputs(self, batch: Batch) -> Said:
        with heard(self.network, self.heads) as calls:
            losses = self.network(self._inputs(batch.images), targets_of(batch, self.first_label))
        return Said(losses, calls)

    def loss_from(self, outputs: Said, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        share = share_of_mean(len(batch.images), batch.images.device)  # torchvision's means weigh images alike
        parts = {name: share * part for name, part in outputs.losses.items()}
        return torch.stack(list(parts.values())).sum(), parts

    @torch.no_grad()
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        """Torchvision lets a box be found as several classes, whatever `settings.multi_label` says."""
        found = {"score_thresh": settings.confidence, "nms_thresh": settings.iou}
        with temporarily(self.thresholds(), **found, detections_per_img=settings.max_detections):
            results = self.network(self._inputs(images))
        return [Detections(r["boxes"].float(), r["scores"].float(), r["labels"] - self.first_label) for r in results]

    def _inputs(self, images: Tensor) -> list[Tensor]:
        return list(images.to(next(self.network.parameters())) / 255)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps that the heads read, by level."""
        network: Any = self.network
        return network.backbone(network.transform(self._inputs(images))[0].tensors)


class OneHeadDetector(TorchvisionDetector):
    """A detector whose `head` says everything of the whole pyramid at once; another net learns from what it says."""

    heads = (HEAD,)

    def compared(self, images: Tensor) -> list[Tensor]:
        """What the head says at every anchor or place."""
        return result_tensors(self.network.head(self.features(images)))  # type: ignore[operator]

    @torch.no_grad()
    def lesson(self, batch: Batch, outputs: Said) -> Said:
        network: Any = self.network
        return Said({}, {HEAD: ((), network.head(list(self._features(batch.images).values())))})


@contextmanager
def heard(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Within, the arguments and the result of the last call of each of these modules."""
    calls: dict[str, tuple[Any, Any]] = {}

    def listener(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, args, result: calls.update({name: (args, result)})

    handles = [network.get_submodule(name).register_forward_hook(listener(name)) for name in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def temporarily(module: Any, **values: Any) -> Iterator[None]:
    """Attributes of a module, as they were before afterwards."""
    before = {name: getattr(module, name) for name in values}
    try:
        vars(module).update(values)
        yield
    finally:
        vars(module).update(before)


def targets_of(batch: Batch, first_label: int) -> list[dict[str, Tensor]]:
    """Per image "boxes" [n, 4] (xmin, ymin, xmax, ymax in pixels) and "labels" [n].

    Boxes that rounding has left without an area are dropped, because torchvision refuses them.
    """
    boxes = box_convert(batch.boxes * batch.images.shape[-1], "cxcywh", "xyxy")
    solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    rows = [(batch.image_index == i) & solid for i in range(len(batch.images))]
    return [{"boxes": boxes[own], "labels": batch.labels[own] + first_label} for own in rows]


class Normalisation(GeneralizedRCNNTransform):
    """Normalisation alone: the images come letterboxed in their final size, so nothing is resized."""

    def __init__(self, mean: list[float] = IMAGENET_MEAN, std: list[float] = IMAGENET_STD) -> None:
        super().__init__(min_size=0, max_size=0, image_mean=mean, image_std=std)

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


def make_network(
    model: ModelConfig, classes: Sequence[str], builders: dict[str, Callable[[int], nn.Module]], frozen: Sequence[str]
) -> nn.Module:
    """The network of `model.variant`, without its weights; batch norms of the variants in `frozen` stay as loaded.

    A builder takes the number of classes. All parameters are trainable: a frozen stem could not recover from pruning.
    """
    if model.variant not in builders:
        raise InputError(f"model.variant={model.variant} is no {model.family}; use one of {', '.join(builders)}")
    if not classes:
        raise InputError("the data set has no classes; give one with at least one class")
    network: Any = builders[model.variant](len(classes))
    network.transform = Normalisation(network.transform.image_mean, network.transform.image_std)
    if model.variant in frozen and (model.weights or model.backbone_weights):
        freeze_batch_norms(network)
    if model.stride_on_1x1:
        move_strides(network)
    return network


def load_all(detector: Detector, model: ModelConfig, rows: Rows) -> list[str]:
    """Loads `model.backbone_weights`, then `model.weights`; returns notes on what did not fit."""
    if model.backbone_weights is not None:
        load_backbone(detector.network, model.backbone_weights)
    if model.weights is None:
        return []
    state = read_state_dict(model.weights)
    notes = fit_classes(detector, state, rows)
    load_strictly(detector.network, state, model.weights, f"give weights of {model.family} {model.variant}")
    return notes


def load_backbone(network: nn.Module, path: str) -> None:
    """ImageNet classification weights under torchvision's names; the classifier is left out."""
    state = {
        name.removeprefix("features."): tensor
        for name, tensor in read_state_dict(path).items()
        if not name.startswith(("fc.", "classifier."))
    }
    load_strictly(network.backbone.body, state, path, "give torchvision's weights of this backbone")  # type: ignore


def fit_classes(detector: Detector, state: dict[str, Tensor], rows: Rows) -> list[str]:
    """Makes the class rows of `state` those of the detector: copied by name from COCO's 91, else fresh ones.

    The background's are always copied. Returns notes.
    """
    own = detector.network.state_dict()
    name, layout = next((f"{module}.bias", layout) for module, layout in rows.items())
    if name not in state or state[name].shape == own[name].shape:
        return []
    count = layout.classes(len(state[name]))
    coco = COCO_CATEGORIES[layout.fixed :]
    matches = match(detector.classes, coco if count == len(coco) else None, count)
    layers = {f"{module}.{kind}": rows[module] for module in rows for kind in ("weight", "bias")}
    state.update({key: with_rows(own[key], state[key], layers[key], matches) for key in layers if key in state})
    detector.fresh = matches.fresh
    return list(matches.notes)


def freeze_batch_norms(module: nn.Module) -> None:
    """Batch norms become constants, as usual where small batches fine-tune a pretrained backbone."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_batch_norms(child)


def move_strides(network: nn.Module) -> None:
    """The stride of layers 2-4 from the 3×3 to the 1×1 convolution, as in the original ResNet (arXiv 1512.03385)."""
    body: Any = getattr(network.backbone, "body", {})
    firsts = [body[name][0] for name in ("layer2", "layer3", "layer4") if name in body]
    if not firsts or not all(isinstance(block, Bottleneck) for block in firsts):
        raise InputError("model.stride_on_1x1=true is only for ResNets with bottlenecks; set it to false")
    for block in firsts:
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)


class NarrowResNet(ResNet):
    """A ResNet-14 with bottlenecks and an eighth of the channels behind the stem, for tests."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [1, 1, 1, 1])

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *args, **kwargs)
