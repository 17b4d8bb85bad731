"""The architectures that pruning is proven on, and the proof for one of them: `check(name)`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection

import dcodp
from dcodp import _ultralytics
from dcodp.detectors.families.yolov7.network import yolov7
from dcodp.detectors.torchvision_common import freeze_batch_norms
from dcodp.graph import CouplingGraph
from dcodp.pruning.plan import PrunePlan
from dcodp.testing import enliven, relative_error, run, zeroed

RATIOS = (0.3, 0.5)
VISIBLE = 1e-6  # what a mistake must change at least, or the comparison proves nothing


@dataclass(frozen=True)
class Architecture:
    """One net: how to build and call it, and where to look at what it computes.

    `heads` are modules whose outputs are compared instead of the result: what is left after non-maximum suppression
    shows little of them, and among equal scores it is arbitrary. `ignored` are the modules that torch-pruning's own
    examples leave alone.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    size: int = 64  # pixels
    first_result: bool = False  # only the first part of the result is an output, the rest is passed-on features
    takes_list: bool = False  # images as a list of [3, S, S] instead of [B, 3, S, S]
    heads: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    convolutional_detector: bool = False  # at least 70 % of the parameters must go at ratio 0.5

    def inputs(self, size: int, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
        return ([image[0]],) if self.takes_list else (image,)

    def outputs(self, result: Any) -> Any:
        """What must stay."""
        return result[0] if self.first_result else result

    def compared(self, result: Any) -> Any:
        return [] if self.heads else self.outputs(result)


def _yolo(name: str, task: str = "DetectionModel", **options: Any) -> Architecture:
    def build() -> nn.Module:
        _ultralytics.prepare()
        from ultralytics.nn import tasks

        return getattr(tasks, task)(f"{name}.yaml", verbose=False)

    options = {"size": 128, "convolutional_detector": True, "ignored": ("head",), **options}
    return Architecture(name, "ultralytics", build, first_result=True, **options)


def _classifier(name: str, size: int = 128, **options: Any) -> Architecture:
    def build() -> nn.Module:
        return getattr(models, name)(weights=None, **options)

    return Architecture(name, "torchvision", build, size, ignored=("classifier",))


def _detector(name: str, frozen: bool = False, size: int = 128, **options: Any) -> Architecture:
    """A torchvision detector at `size` pixels, with few proposals so that the heads on the CPU do not take minutes."""

    def build() -> nn.Module:
        network = getattr(detection, name)(weights=None, weights_backbone=None)
        if not name.startswith("ssd"):
            network.transform.min_size, network.transform.max_size = (size,), size
        if hasattr(network, "rpn"):
            network.rpn._pre_nms_top_n = {"training": 200, "testing": 200}
            network.rpn._post_nms_top_n = {"training": 50, "testing": 50}
        if frozen:
            freeze_batch_norms(network)
        return network

    label = f"{name}, frozen batch norm" if frozen else name
    return Architecture(label, "torchvision detection", build, size, takes_list=True, **options)


def _faster_rcnn(name: str, frozen: bool) -> Architecture:
    heads = ("rpn.head", "roi_heads.box_predictor")
    ignored = ("rpn.head.cls_logits", "rpn.head.bbox_pred", "backbone.fpn", "roi_heads")
    return _detector(name, frozen, heads=heads, ignored=ignored, convolutional_detector=True)


def _list() -> list[Architecture]:
    yolos = ("yolov3", "yolov5n", "yolov6n", "yolov8n", "yolov8s", "yolov8m", "yolov9t", "yolov9c", "yolov10n",
             "yolo11n", "yolo12n", "yolo26n")  # fmt: skip
    tasks = {"yolov8n-seg": "SegmentationModel", "yolov8n-pose": "PoseModel", "yolov8n-obb": "OBBModel"}
    rcnns = ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_fpn")
    classifiers = ("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
                   "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf", "regnet_x_400mf",
                   "shufflenet_v2_x1_0", "convnext_tiny", "swin_t", "swin_v2_t")  # fmt: skip
    return [
        *(_yolo(name) for name in yolos),
        *(_yolo(name, task) for name, task in tasks.items()),
        Architecture("yolov7", "dcodp", lambda: yolov7(80), 128, True, ignored=("head",), convolutional_detector=True),
        _yolo("rtdetr-l", "RTDETRDetectionModel", convolutional_detector=False),
        *(_faster_rcnn(name, frozen) for name in rcnns for frozen in (False, True)),
        _detector("retinanet_resnet50_fpn", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("retinanet_resnet50_fpn_v2", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("fcos_resnet50_fpn", heads=("head",), ignored=("head",), convolutional_detector=True),
        _detector("ssd300_vgg16", size=300, heads=("head",), ignored=("head",)),
        _detector("ssdlite320_mobilenet_v3_large", size=320, heads=("head",), ignored=("head",)),
        *(_classifier(name) for name in classifiers),
        _classifier("vit_b_16", 96, image_size=96),
    ]


ARCHITECTURES = {architecture.name: architecture for architecture in _list()}


def check(name: str, size: int | None = None, ratios: Sequence[float] = RATIOS) -> dict[str, Any]:
    """Trace, prune at random and compare with the dense net without the channels, in float64 with live signals."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    inputs = architecture.inputs(size or architecture.size)
    model = enliven(architecture.build().double().eval(), inputs)
    start = time.perf_counter()
    graph = dcodp.trace(model, inputs, outputs=architecture.outputs)
    seconds = time.perf_counter() - start
    return {
        "name": name,
        "family": architecture.family,
        "size": size or architecture.size,
        "parameters": graph.parameter_count(),
        "trace_seconds": round(seconds, 3),
        "groups": len(graph.groups),
        "channels": sum(g.channels for g in graph.groups),
        "frozen": [vars(frozen) for frozen in graph.frozen],
        "notes": graph.notes,
        "ratios": {str(ratio): prove(architecture, model, graph, inputs, ratio) for ratio in ratios},
    }


def prove(
    architecture: Architecture, model: nn.Module, graph: CouplingGraph, inputs: tuple[Any, ...], ratio: float
) -> dict[str, float]:
    """Shares removed, and the relative differences: pruned against zeroed, dense against pruned, swapped channels."""
    generator = torch.Generator().manual_seed(1)
    scores = {g.name: torch.rand(g.channels, generator=generator) for g in graph.groups}
    plan = dcodp.select(graph, scores, ratio=ratio)
    enliven(model, inputs, without=plan)
    small = dcodp.prune(model, plan)

    heads = {*architecture.heads, *last_layers(graph)}

    def computed(network: nn.Module) -> list[Tensor]:
        return run(network, inputs, architecture.compared, sorted(heads))

    expected, found = computed(zeroed(model, plan)), computed(small)
    return {
        "parameters_removed": 1 - graph.parameter_count(plan.groups) / graph.parameter_count(),
        "flops_removed": 1 - graph.flops(plan.groups) / graph.flops(),
        "error": difference(expected, found),
        "changes": difference(computed(model), found),
        "swapped": caught(small, graph, plan, lambda wrong: difference(expected, computed(wrong))),
    }


def last_layers(graph: CouplingGraph) -> list[str]:
    """The layers that no other layer works on further, among those that the evaluation pass runs."""
    parents = {parent for found in graph.parents.values() for parent in found}
    return [layer for layer in ran(graph) if layer not in parents]


def ran(graph: CouplingGraph) -> list[str]:
    """The layers that the evaluation pass runs (training may run more)."""
    applied = {c.layer for c in graph.contractions}
    return [layer for layer in graph.parents if layer in applied]


def difference(want: Sequence[Tensor], have: Sequence[Tensor]) -> float:
    """The largest relative difference; infinite where shapes differ (another number of detections, say)."""
    if [t.shape for t in want] != [t.shape for t in have]:
        return float("inf")
    return max(relative_error(a, b) for a, b in zip(want, have, strict=True))


def caught(small: nn.Module, graph: CouplingGraph, plan: PrunePlan, effect: Callable[[nn.Module], float]) -> float:
    """The smallest effect of exchanging two input channels of one layer: tried early, in the middle and late."""
    running = ran(graph)
    weights = [
        site.tensor
        for group in graph.groups
        for site in group.sites
        if site.role == "in"
        and site.dim == 1
        and site.tensor.removesuffix(".weight") in running
        and len(plan.keep.get(site.tensor, {}).get(1, ())) > 1
    ]
    chosen = [weights[int(share * (len(weights) - 1))] for share in (0.1, 0.5, 0.9)]
    return min(_first_effect(small, name, effect) for name in chosen)


def _first_effect(small: nn.Module, name: str, effect: Callable[[nn.Module], float]) -> float:
    """Of one pair; of another where both channels happen to be silent (behind a ReLU, say)."""
    found = 0.0
    for first in range(0, min(8, small.get_parameter(name).shape[1] - 1), 2):
        twin = copy.deepcopy(small)
        weight = twin.get_parameter(name)
        order = torch.arange(weight.shape[1])
        order[first], order[first + 1] = first + 1, first
        with torch.no_grad():
            weight.copy_(weight[:, order].clone())
        found = max(found, effect(twin))
        if found >= VISIBLE:
            break
    return found
