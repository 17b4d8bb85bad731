"""Every detector of ultralytics beside YOLOv8: `model=yolo11n`, `model=rtdetr-l`, `model=PATH.yaml` of one's own.

model.variant names ultralytics' description (yolo11n, or a file). RT-DETR's box losses and YOLO's are ultralytics' own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcodp import _ultralytics
from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.class_rows import Layout, Matches, match, with_rows
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.description import Description, class_width, described
from dcodp.detectors.ultralytics.description import build as build_network
from dcodp.detectors.ultralytics.opening import going_on, pruned_before
from dcodp.errors import InputError
from dcodp.files.loading import require_same_shapes

# Layers with one output, or one row of an embedding, for each class.
CLASS_LAYERS = re.compile(
    r"model\.\d+\.((one2one_)?cv3\.\d+\.2|enc_score_head|dec_score_head\.\d+|denoising_class_embed)\..*"
)


def build(model: ModelConfig, classes: tuple[str, ...]) -> tuple[Detector, list[str]]:
    """The detector that `model` describes, and notes on what of its weights could not be used.

    Without weights the network is initialised from torch's global generator, which the caller seeds. Raises
    InputError for a name or file that describes none, no classes, and weights of another architecture.
    """
    if model.backbone_weights is not None:
        raise InputError("model.backbone_weights does not apply to nets of ultralytics; use model.weights")
    if not classes:
        raise InputError("the data set has no classes; give one with at least one class")
    if model.weights is not None and (opened := going_on(model.weights)) is not None:
        return pruned_before(UltralyticsNet, model, opened, classes)
    checkpoint = None if model.weights is None else read_checkpoint(model.weights)
    tree = _tree(model.variant, len(classes))
    kind = "RTDETRDetectionModel" if _is_transformer(tree) else "DetectionModel"
    width = None if checkpoint is None else class_width(checkpoint)
    description = Description(kind, tree, dict(enumerate(classes)), width)
    detector = UltralyticsNet(model.name, build_network(description), classes)
    detector.description = description
    return detector, [] if checkpoint is None else _load(detector, checkpoint, str(model.weights))


def _tree(variant: str, classes: int) -> dict[str, Any]:
    """Ultralytics' description of this name, or that in a file."""
    _ultralytics.prepare()
    from ultralytics.nn.tasks import yaml_model_load

    name = variant if variant.endswith((".yaml", ".yml")) else f"{variant}.yaml"
    if name == variant and not Path(variant).is_file():
        raise InputError(f"model.variant={variant} does not exist; give a model's .yaml file")
    try:
        tree = dict(yaml_model_load(name))
    except (FileNotFoundError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"model.variant={variant} is no description that ultralytics knows ({reason})") from error
    return {**tree, "nc": classes}


def _is_transformer(tree: dict[str, Any]) -> bool:
    head = tree.get("head") or [[]]
    return isinstance(head, list) and bool(head[-1]) and "RTDETRDecoder" in head[-1]


def _load(detector: UltralyticsNet, checkpoint: Any, path: str) -> list[str]:
    """Loads the weights; those of other classes keep their class branch, and rows are copied by class name."""
    if checkpoint.kind:
        described(checkpoint, path)  # says what it is where it is no net of ultralytics
    own, state = detector.network.state_dict(), dict(checkpoint.state)
    layers = [key for key in own if CLASS_LAYERS.fullmatch(key) and key in state]
    notes: list[str] = []
    if layers:
        matches = match(detector.classes, checkpoint.names, len(state[layers[0]]))
        state.update({key: _rows(own[key], state[key], matches) for key in layers})
        detector.fresh, notes = matches.fresh, list(matches.notes)
    require_same_shapes(state, own, path)
    with torch.no_grad():
        detector.network.load_state_dict(state)
    return notes


def _rows(own: Tensor, trained: Tensor, matches: Matches) -> Tensor:
    return with_rows(own, trained, Layout(), matches)
