"""A net as exporters take it: one tensor in, tensors out, batch norms folded, heads told that they are exported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.copying import copied
from dcodp.graph.tracing import result_tensors

Outputs = Callable[[Any], Any]  # a net's result → the part of it that matters


@dataclass(frozen=True, eq=False)
class Exportable:
    """What a format writes: a module [B, 3, H, W] → tensor or tuple of tensors, an example, the names of the outputs,
    facts for its readers."""

    module: nn.Module
    example: Tensor
    output_names: list[str]
    facts: Mapping[str, str]


class Picked(nn.Module):
    """The tensors in `outputs(network(images))`: one alone, several as a tuple."""

    def __init__(self, network: nn.Module, outputs: Outputs, listed: bool = False):
        """`listed`: the net takes a list of images, as torchvision's detectors do."""
        super().__init__()
        self.network, self.outputs, self.listed = network, outputs, listed

    def forward(self, images: Tensor) -> Any:
        result = self.network(list(images) if self.listed else images)
        tensors = tuple(result_tensors(self.outputs(result)))
        return tensors[0] if len(tensors) == 1 else tensors


def exportable(
    network: nn.Module, example: Tensor, outputs: Outputs, names: Sequence[str] | None = None, listed: bool = False
) -> Exportable:
    """A copy of the net, in float32 and eval mode on the CPU, made ready; the net itself is left as it was.

    `outputs` picks from the result of the net as it is. An ultralytics head that is exported returns no more than its
    predictions, so for such nets all of it is taken. `names`: of the classes, for the file's readers.
    """
    own, example = copied(network).cpu().float().eval(), example.cpu().float()
    facts = _facts(own, example, names) if is_ultralytics(own) else {}
    module = Picked(_settled(own, example), lambda result: result) if facts else Picked(own, outputs, listed)
    with torch.no_grad():  # heads lay out their anchors in the first run, which no exporter needs to record
        count = len(result_tensors(module.eval()(example)))
    return Exportable(module, example, [f"output{number}" for number in range(count)], facts)


def is_ultralytics(network: nn.Module) -> bool:
    """Whether it is a net of that package, which nobody needs to have installed."""
    tasks = sys.modules.get("ultralytics.nn.tasks")  # imported already where a net comes from it
    return tasks is not None and isinstance(network, tasks.BaseModel)


def _settled(network: Any, example: Tensor) -> nn.Module:
    """What ultralytics' own exporter does to a net before it writes ONNX, without what it asks of the machine (it looks
    for packages to install and writes beside the checkpoint)."""
    for parameter in network.parameters():
        parameter.requires_grad = False
    network = network.fuse(verbose=False)
    places = sum(int(example.shape[2] / s) * int(example.shape[3] / s) for s in network.stride.tolist())
    for module in network.modules():
        if not hasattr(type(module), "export"):
            continue
        module.export, module.format, module.dynamic = True, "onnx", False
        if hasattr(module, "max_det"):  # of heads that choose detections themselves: no more than there are
            module.max_det = min(module.max_det, getattr(module, "num_queries", places))
        module.shape = None  # anchors are laid out anew, for the size exported
    return network


def _facts(network: Any, example: Tensor, names: Sequence[str] | None) -> dict[str, str]:
    """The metadata of ultralytics' exporter, by which `YOLO(file)` predicts and validates; literals, as it reads
    them."""
    import ultralytics

    head = network.model[-1]
    said = {
        "description": f"{type(network).__name__} written by dcodp",
        "version": ultralytics.__version__,
        "stride": int(max(network.stride)),
        "task": getattr(network, "task", "detect"),
        "head": type(head).__name__,
        "batch": len(example),
        "imgsz": list(example.shape[2:]),
        "names": dict(enumerate(names)) if names is not None else dict(network.names),
        "args": {"batch": len(example), "dynamic": False, "nms": False},
        "channels": example.shape[1],
        "end2end": bool(getattr(head, "end2end", False)),
    }
    for key in ("kpt_shape", "kpt_names"):  # of poses
        if value := getattr(head, key, None) or getattr(network, key, None):
            said[key] = value
    return {key: str(value) for key, value in said.items()}
