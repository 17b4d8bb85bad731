"""YOLOv7 state dicts: the official forms made ours, checked, loaded."""

from __future__ import annotations

import torch
from torch import Tensor

from dcodp.detectors.base import Detector
from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.class_rows import Layout, match, with_rows
from dcodp.files.loading import load_strictly

REPCONVS, HEAD = (102, 103, 104), 105
ROWS = Layout(blocks=3, fixed=5)  # three anchors; x, y, w, h and objectness before the classes
IGNORED = (f"model.{HEAD}.anchor_grid",)  # anchors in pixels, which follow from the anchors


def load_weights(detector: Detector, source: str) -> list[str]:
    """Loads a checkpoint with the official names into the network and returns notes on what differs from it.

    Of other classes the head's rows for boxes and objectness are taken, and those of classes of the same name. Raises
    InputError where the architecture differs.
    """
    checkpoint, wanted = read_checkpoint(source), detector.network.state_dict()
    state = {name: tensor for name, tensor in checkpoint.state.items() if name not in IGNORED}
    notes = _split_plain_convolutions(state, wanted)
    notes += _add_implicits(state, wanted)
    notes += _fit_classes(detector, state, wanted, checkpoint.names)
    load_strictly(detector.network, state, source, "give YOLOv7 P5 weights without auxiliary heads")
    return notes


def _split_plain_convolutions(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Plain convolutions in place of the RepConvs become the 3×3 branches; the 1×1 branches give exactly 0.

    Their weights and their batch norms' scales are zero, so they stay zero in training as well.
    """
    plain = [i for i in REPCONVS if f"model.{i}.conv.weight" in state]
    for i in plain:
        for name in [name for name in state if name.startswith(f"model.{i}.")]:
            new = name.replace(".conv.", ".rbr_dense.0.").replace(".bn.", ".rbr_dense.1.")
            state[new] = state.pop(name)
        branch = {name: t for name, t in wanted.items() if name.startswith(f"model.{i}.rbr_1x1.")}
        state.update({name: torch.zeros_like(t) for name, t in branch.items() if not name.endswith("running_var")})
        state[f"model.{i}.rbr_1x1.1.running_var"] = torch.ones_like(branch[f"model.{i}.rbr_1x1.1.running_var"])
    return ["plain 3×3 convolutions loaded as RepConv with a zero 1×1 branch"] if plain else []


def _add_implicits(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """The official deployed form has folded the implicit vectors away: add 0, multiply by 1."""
    if f"model.{HEAD}.m.0.weight" not in state or f"model.{HEAD}.ia.0.implicit" in state:
        return []
    for name, tensor in wanted.items():
        if name.endswith(".implicit"):
            multiplied = f"model.{HEAD}.im." in name
            state[name] = torch.ones_like(tensor) if multiplied else torch.zeros_like(tensor)
    return ["no implicit vectors in the weights: they start as 0 (added) and 1 (multiplied)"]


def _fit_classes(
    detector: Detector, state: dict[str, Tensor], wanted: dict[str, Tensor], names: tuple[str, ...] | None
) -> list[str]:
    """Makes the rows of the head's last convolutions, and of the factors behind them, the detector's."""
    bias = f"model.{HEAD}.m.0.bias"
    if bias not in state or state[bias].ndim != 1:
        return []
    matches = match(detector.classes, names, ROWS.classes(len(state[bias])))
    by_class = (f"model.{HEAD}.m.", f"model.{HEAD}.im.")
    layers = [name for name in wanted if name.startswith(by_class) and name in state]
    state.update({name: with_rows(wanted[name], state[name], ROWS, matches) for name in layers})
    detector.fresh = matches.fresh
    return list(matches.notes)
