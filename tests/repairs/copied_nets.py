"""Networks whose removed channels are copies of kept ones, times a factor: a repair can bring everything back."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Forward = Callable[..., Tensor]


class Net(nn.Module):
    """Modules by name and a forward that is given."""

    def __init__(self, forward: Forward, **modules: nn.Module):
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self, images)


def copied(layer: nn.Module, half: int, norm: nn.Module | None = None, factor: float = 2.0) -> nn.Module:
    """The filters from `half` on become `factor` times the first ones, also behind a norm; ReLU keeps that."""
    with torch.no_grad():
        target = layer if norm is None else norm
        layer.weight[half:] = layer.weight[:half] * (factor if norm is None else 1.0)
        if layer.bias is not None:
            layer.bias[half:] = layer.bias[:half] * (factor if norm is None else 1.0)
        if norm is not None:
            for tensor in (norm.running_mean, norm.running_var):
                tensor[half:] = tensor[:half]
            target.weight[half:], target.bias[half:] = norm.weight[:half] * factor, norm.bias[:half] * factor
    return layer


def lively(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    return norm
