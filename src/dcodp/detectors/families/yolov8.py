"""YOLOv8 (ultralytics' architecture and loss) as a `Detector`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dcodp import _ultralytics
from dcodp.config import ModelConfig
from dcodp.data.types import Batch, Detections
from dcodp.detectors.base import DecodeSettings, Detector
from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.class_rows import Layout, match, with_rows
from dcodp.detectors.comparing import prediction_distance
from dcodp.detectors.imitation import binary_divergence, categorical_divergence, weighted_mean
from dcodp.detectors.nms import non_maximum_suppression
from dcodp.detectors.parallel import mean_over_processes
from dcodp.errors import InputError
from dcodp.files.loading import require_same_shapes

VARIANTS = ("n", "s", "m", "l", "x")
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}  # the paper's, section 4; also ultralytics' defaults
CLASS_BRANCH = "model.22.cv3."  # the part of the head whose shapes depend on the number of classes


class YOLOv8(Detector):
    """`network` is ultralytics' DetectionModel: images [B, 3, S, S] in 0…1 → (predictions [B, 4 + C, N], features).

    Predictions hold cx, cy, w, h in input pixels and one probability per class.
    """

    _criterion: tuple[nn.Module, torch.device, Any] | None = None

    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Tensor]:
        weight = next(self.network.parameters())
        noise = torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        return (noise.to(weight),)

    def outputs(self, result: Any) -> Tensor:
        return result[0]

    def distance(self, mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """As `prediction_distance`: predictions [B, 4 + C, N]."""
        (a,), (b,) = mine, theirs
        return prediction_distance(a[:, :4].mT, a[:, 4:].mT, b[:, :4].mT, b[:, 4:].mT)

    def training_outputs(self, batch: Batch) -> Any:
        """The head's raw maps, as ultralytics' loss takes them."""
        return self.network(self._scaled(batch.images))

    def loss_from(self, outputs: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Box, class and distribution-focal loss after task-aligned assignment, each after its gain.

        Ultralytics' sum is this mean times the number of images.
        """
        targets = {"batch_idx": batch.image_index, "cls": batch.labels, "bboxes": batch.boxes}
        criterion, assigned = self._loss(), []
        handle = criterion.assigner.register_forward_hook(lambda _m, _a, found: assigned.append(found[2].sum()))
        try:
            total, parts = criterion(outputs, targets)
        finally:
            handle.remove()
        # It divides by the sum of the assigned scores, at least 1; in a shared batch that of all processes counts.
        share = assigned[0].clamp(min=1) / mean_over_processes(assigned[0], least_total=1.0)
        return share * total.sum() / len(batch.images), {k.removesuffix("_loss"): share * v for k, v in parts.items()}

    @torch.no_grad()
    def lesson(self, batch: Batch, outputs: Any) -> Any:
        return self.network(self._scaled(batch.images))[1]

    def imitation(self, outputs: Any, lesson: Any) -> dict[str, Tensor]:
        """ "cls": of all class probabilities; "dfl": of the four sides' distributions; each after the loss' gain.

        Both are means over places, weighted by the highest class probability that the dense net gives each.
        """
        weights = lesson["scores"].float().sigmoid().amax(1)  # [B, N]
        classes = binary_divergence(outputs["scores"], lesson["scores"]).sum(1)
        found, taught = (maps["boxes"].unflatten(1, (4, -1)) for maps in (outputs, lesson))  # [B, 4, bins, N]
        sides = categorical_divergence(found, taught, 2).mean(1)
        parts = {"cls": classes, "dfl": sides}
        return {name: GAINS[name] * weighted_mean(values, weights) for name, values in parts.items()}

    def in_shapes_of(self, network: nn.Module) -> Detector:
        _widen(self.network, network.state_dict())
        return self

    @torch.no_grad()
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        raw = self.outputs(self.network(self._scaled(images))).transpose(1, 2)  # [B, N, 4 + C]
        centre, size, scores = raw.split((2, 2, raw.shape[2] - 4), dim=2)
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=2)
        return non_maximum_suppression(boxes, scores, settings)

    def _scaled(self, images: Tensor) -> Tensor:
        """uint8 → the network's dtype, device and range 0…1."""
        return images.to(next(self.network.parameters())) / 255

    def _loss(self) -> Any:
        """Ultralytics' loss for the present network on its present device (it keeps strides and device inside)."""
        device = next(self.network.parameters()).device
        if self._criterion is None or self._criterion[0] is not self.network or self._criterion[1] != device:
            from ultralytics.utils.loss import v8DetectionLoss

            view = SimpleNamespace(
                parameters=self.network.parameters, model=self.network.model, args=SimpleNamespace(**GAINS)
            )
            self._criterion = (self.network, device, v8DetectionLoss(view))  # type: ignore[arg-type]
        return self._criterion[2]


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[YOLOv8, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Without weights the network is initialised from torch's global generator, which the caller seeds. Raises
    InputError for an unknown variant, no classes, and weights of another architecture.
    """
    if model.variant not in VARIANTS:
        raise InputError(f"model.variant={model.variant} is not a YOLOv8; use one of {', '.join(VARIANTS)}")
    if model.backbone_weights is not None:
        raise InputError("model.backbone_weights does not apply to yolov8; use model.weights")
    if not classes:
        raise InputError("the data set has no classes; give one with at least one class")
    network = _network(model.variant, len(classes))
    detector = YOLOv8(model.name, network, classes)
    return detector, [] if model.weights is None else _load(detector, model.weights)


def _network(variant: str, classes: int) -> nn.Module:
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"yolov8{variant}.yaml", nc=classes, verbose=False)


def _load(detector: YOLOv8, path: str) -> list[str]:
    """Loads the weights; those of other classes keep their class branch, as ultralytics' trainer does.

    Its hidden layers, whose width follows from the number of classes, stay as wide as they were trained, and the last
    layers' rows are copied by class name. Returns notes.
    """
    checkpoint = read_checkpoint(path)
    _widen(detector.network, checkpoint.state)
    own, state = detector.network.state_dict(), dict(checkpoint.state)
    notes = _fit_classes(detector, state, own, checkpoint.names)
    require_same_shapes(state, own, path)
    detector.network.load_state_dict(state)
    return notes


def _widen(network: Any, state: dict[str, Tensor]) -> None:
    """Gives the class branch of `network` the width of the one in `state`, where one is there that is regular."""
    head = network.model[-1]
    for level, branch in enumerate(head.cv3):
        last = state.get(f"{CLASS_BRANCH}{level}.2.weight")
        if last is not None and last.ndim == 4 and last.shape[1] != branch[2].in_channels:
            inputs, width = branch[0].conv.in_channels, last.shape[1]
            head.cv3[level] = _class_branch(inputs, width, head.nc)
    head.bias_init()  # as the builder of the whole network does


def _class_branch(inputs: int, width: int, classes: int) -> nn.Module:
    """One level of ultralytics' `Detect.cv3`: 3×3, 3×3, 1×1."""
    from ultralytics.nn.modules import Conv
    from ultralytics.utils.torch_utils import initialize_weights

    branch = nn.Sequential(Conv(inputs, width, 3), Conv(width, width, 3), nn.Conv2d(width, classes, 1))
    initialize_weights(branch)
    return branch


def _fit_classes(
    detector: YOLOv8, state: dict[str, Tensor], own: dict[str, Tensor], names: tuple[str, ...] | None
) -> list[str]:
    """Makes the last layers of the class branch in `state` those of the detector; returns notes on what was copied."""
    layers = [key for key in own if key.startswith(CLASS_BRANCH) and key.split(".")[4] == "2" and key in state]
    if not layers:
        return []
    matches = match(detector.classes, names, len(state[layers[0]]))
    state.update({key: with_rows(own[key], state[key], Layout(), matches) for key in layers})
    detector.fresh = matches.fresh
    return list(matches.notes)
