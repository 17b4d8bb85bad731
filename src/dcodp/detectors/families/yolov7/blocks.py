"""The building blocks of YOLOv7 (arXiv 2207.02696); module names follow the official state dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dcodp.detectors.merging import fused, merge


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


class ConvBlock(nn.Module):
    """Convolution (padding keeps the size at stride 1), batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = batch_norm(outputs)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Puts the batch norm (running statistics) into the convolution; in eval mode the same function."""
        merge(self)


class RepConv(nn.Module):
    """Sum of a 3×3 branch, a 1×1 branch and, where input and output have the same width, an identity; then SiLU.

    Every branch ends in its own batch norm. `fuse` turns the sum into one 3×3 convolution (RepVGG, arXiv 2101.03697;
    YOLOv7 uses it without identity where a shortcut or concatenation would follow, so P5 has no identity branch).
    """

    rbr_dense: Any  # one convolution after `fuse`, and the others None
    rbr_1x1: Any
    rbr_identity: Any

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.rbr_dense = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), batch_norm(outputs))
        self.rbr_1x1 = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), batch_norm(outputs))
        self.rbr_identity = batch_norm(outputs) if inputs == outputs else None
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x)
        if self.rbr_1x1 is not None:
            y = y + self.rbr_1x1(x)
        if self.rbr_identity is not None:
            y = y + self.rbr_identity(x)
        return self.act(y)

    @torch.no_grad()
    def fuse(self) -> None:
        """Adds the branches, batch norms included, into the 3×3 convolution; in eval mode the same function."""
        if self.rbr_1x1 is None:
            return
        conv: Any = fused(*self.rbr_dense)
        branches: list[Any] = [fused(*self.rbr_1x1)]
        if self.rbr_identity is not None:
            branches.append(fused(_identity(conv), self.rbr_identity))
        for branch in branches:
            conv.weight += nn.functional.pad(branch.weight, [1, 1, 1, 1])  # the middle tap of the 3×3 kernel
            conv.bias += branch.bias
        self.rbr_dense, self.rbr_1x1, self.rbr_identity = conv, None, None


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling inside a cross-stage partial block: max pooling at 5, 9 and 13 on one of two paths."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...] = (5, 9, 13)):
        super().__init__()
        self.cv1 = ConvBlock(inputs, outputs)
        self.cv2 = ConvBlock(inputs, outputs)
        self.cv3 = ConvBlock(outputs, outputs, 3)
        self.cv4 = ConvBlock(outputs, outputs)
        self.m = nn.ModuleList(nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernels)
        self.cv5 = ConvBlock((len(kernels) + 1) * outputs, outputs)
        self.cv6 = ConvBlock(outputs, outputs, 3)
        self.cv7 = ConvBlock(2 * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat([y, self.cv2(x)], 1))


class Concat(nn.Module):
    """Channel concatenation as a layer, so that the official numbering holds."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class Implicit(nn.Module):
    """A learned vector, one value per channel, added to or multiplied with a map (YOLOR, arXiv 2105.04206)."""

    def __init__(self, channels: int, mean: float):
        super().__init__()
        self.implicit = nn.Parameter(mean + 0.02 * torch.randn(1, channels, 1, 1))


def _identity(like: nn.Conv2d) -> nn.Conv2d:
    """A 1×1 convolution that copies its input."""
    channels, weight = like.out_channels, like.weight
    conv = nn.Conv2d(channels, channels, 1, bias=False, device=weight.device, dtype=weight.dtype)
    conv.weight.data = torch.eye(channels, device=weight.device, dtype=weight.dtype)[:, :, None, None]
    return conv
