"""YOLOv8 (ultralytics' architecture and loss) as a `Detector`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from dcodp import _ultralytics
from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.class_rows import Layout, match, with_rows
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import going_on, pruned_before
from dcodp.errors import InputError
from dcodp.files.loading import require_same_shapes

VARIANTS = ("n", "s", "m", "l", "x")
CLASS_BRANCH = "model.22.cv3."  # the part of the head whose shapes depend on the number of classes


class YOLOv8(UltralyticsNet):
    """`network` is ultralytics' DetectionModel: images [B, 3, S, S] in 0…1 → (predictions [B, 4 + C, N], features).

    Predictions hold cx, cy, w, h in input pixels and one probability per class.
    """

    def in_shapes_of(self, other: Detector) -> Detector:
        if other.pruned_by is not None:
            return super().in_shapes_of(other)
        _widen(self.network, other.network.state_dict())
        return self


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[UltralyticsNet, list[str]]:
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
    if model.weights is not None and (opened := going_on(model.weights)) is not None:
        return pruned_before(YOLOv8, model, opened, classes)
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
