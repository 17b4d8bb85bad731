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
from dcodp.detectors.checkpoint import Checkpoint, read_checkpoint
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
    notes = [] if model.weights is None else _load(network, model.weights, classes)
    return YOLOv8(model.name, network, classes), notes


def _network(variant: str, classes: int) -> nn.Module:
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(f"yolov8{variant}.yaml", nc=classes, verbose=False)


def _load(network: nn.Module, path: str, classes: tuple[str, ...]) -> list[str]:
    """Loads what fits. Only the class branch may differ, and only where the number of classes does."""
    checkpoint, own = read_checkpoint(path), network.state_dict()
    bias = checkpoint.state.get(f"{CLASS_BRANCH}0.2.bias")
    same_classes = bias is None or len(bias) == len(classes)
    fresh = [] if same_classes else _changed_by_classes(checkpoint.state, own)
    weights = {name: value for name, value in checkpoint.state.items() if name not in fresh}
    require_same_shapes(weights, {name: value for name, value in own.items() if name not in fresh}, path)
    network.load_state_dict(weights, strict=same_classes)
    return _notes(checkpoint, fresh, 0 if bias is None else len(bias), classes)


def _changed_by_classes(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """The tensors of the class branch with another shape here; with fewer classes its hidden layers are narrower."""
    return [k for k in own if k.startswith(CLASS_BRANCH) and k in state and state[k].shape != own[k].shape]


def _notes(checkpoint: Checkpoint, fresh: list[str], trained: int, classes: tuple[str, ...]) -> list[str]:
    notes = []
    if fresh:
        last = ", ".join(k for k in fresh if k.split(".")[4] == "2")
        hidden = len([k for k in fresh if k.split(".")[4] != "2"])
        notes.append(
            f"weights of {trained} classes in a detector of {len(classes)}: initialised anew are {last}"
            + (f" and {hidden} tensors of the class branch before them, which is of another width" if hidden else "")
        )
    elif checkpoint.names is not None and checkpoint.names != classes:
        pairs = [f"{a} for {b}" for a, b in zip(checkpoint.names, classes, strict=True) if a != b]
        notes.append(f"the weights name {', '.join(pairs[:5])}{' …' * (len(pairs) > 5)}; the class branch was kept")
    return notes
