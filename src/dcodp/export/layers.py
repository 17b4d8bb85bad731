"""The convolutions and matrix products of a net as a runtime sees them, and nets of one such layer to be timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcodp.evaluation.complexity import as_found

Size = tuple[int, int]  # height, width
ACTIVATIONS = {"SiLU": "silu", "ReLU": "relu", "LeakyReLU": "leaky"}


@dataclass(frozen=True)
class Layer:
    """One convolution, whatever its weights; a linear layer is a 1×1 convolution over its
    positions, which the runtimes compute as the same matrix product."""

    inputs: int
    outputs: int
    kernel: Size
    stride: Size
    padding: Size
    dilation: Size
    groups: int
    size: Size  # of what it reads
    transposed: bool = False
    activation: str = ""

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inputs > 1

    @property
    def key(self) -> str:
        """A name by which what was measured is found again."""
        parts = {k: "x".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in asdict(self).items()}
        return " ".join(f"{name}={value}" for name, value in parts.items())

    def narrowed(self, inputs: int, outputs: int) -> Layer:
        """The same with other numbers of channels; groups keep their size."""
        if self.groups == 1:
            return replace(self, inputs=inputs, outputs=outputs)
        groups = max(1, round(self.groups * inputs / self.inputs))
        return replace(self, inputs=groups * (self.inputs // self.groups),
                       outputs=groups * (self.outputs // self.groups), groups=groups)  # fmt: skip


def layers_of(network: nn.Module, example: Tensor) -> list[tuple[str, Layer]]:
    """(name of the module, layer) for each call of a convolution or linear layer, in eval mode, in order."""
    found: list[tuple[str, Layer]] = []
    activation = _typical_activation(network)

    def listener(name: str) -> Any:
        return lambda module, args, _result: found.append((name, _layer(module, args[0], activation)))

    with as_found(network), torch.no_grad():
        network.eval()
        handles = [
            module.register_forward_hook(listener(name))
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        ]
        try:
            network(example)
        finally:
            for handle in handles:
                handle.remove()
    return found


def _typical_activation(network: nn.Module) -> str:
    """What follows most convolutions: the runtimes compute both in one go, or pass over memory twice."""
    kinds = Counter(ACTIVATIONS.get(type(m).__name__, "") for m in network.modules())
    kinds.pop("", None)
    return kinds.most_common(1)[0][0] if kinds else ""


def _layer(module: Any, x: Tensor, activation: str) -> Layer:
    one: Size = (1, 1)
    if isinstance(module, nn.Linear):
        positions = (x.numel() // module.in_features, 1)
        return Layer(module.in_features, module.out_features, one, one, (0, 0), one, 1, positions)
    kernel, stride, dilation = (_pair(v) for v in (module.kernel_size, module.stride, module.dilation))
    padding = (0, 0) if isinstance(module.padding, str) else _pair(module.padding)
    return Layer(
        module.in_channels, module.out_channels, kernel, stride, padding, dilation, module.groups, _pair(x.shape[2:]),
        isinstance(module, nn.ConvTranspose2d), activation,
    )  # fmt: skip


def _pair(values: Sequence[int]) -> Size:
    height, width = map(int, values)
    return height, width


def onnx_of(layer: Layer) -> bytes:
    """An ONNX net of this layer and its activation, with random weights."""
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(0)
    per_group = layer.outputs if layer.transposed else layer.inputs
    rows = layer.inputs if layer.transposed else layer.outputs
    weight = chance.standard_normal((rows, per_group // layer.groups, *layer.kernel)).astype(np.float32)
    bias = chance.standard_normal(layer.outputs).astype(np.float32)
    nodes = [
        helper.make_node(
            "ConvTranspose" if layer.transposed else "Conv", ["images", "weight", "bias"], ["said"],
            kernel_shape=layer.kernel, strides=layer.stride, pads=layer.padding * 2, dilations=layer.dilation,
            group=layer.groups,
        ),
        *_activation(layer.activation),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, layer.inputs, *layer.size])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()


def _activation(kind: str) -> list[Any]:
    from onnx import helper

    if kind == "silu":
        return [helper.make_node("Sigmoid", ["said"], ["gate"]), helper.make_node("Mul", ["said", "gate"], ["done"])]
    operations = {"relu": "Relu", "leaky": "LeakyRelu"}
    return [helper.make_node(operations[kind], ["said"], ["done"])] if kind else []
