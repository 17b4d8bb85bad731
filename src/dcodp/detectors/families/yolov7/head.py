"""The anchor head of YOLOv7 with implicit addition and multiplication, and the decoding of its outputs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.detectors.families.yolov7.blocks import Implicit

STRIDES = (8, 16, 32)
# width, height in pixels of the 640-pixel image, three per level
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


class IDetect(nn.Module):
    """Per level: y = im · conv(ia + x), rows of 5 + C per anchor: x, y, w, h, objectness, classes.

    Training: the raw maps, a list of [B, A, H, W, 5 + C]. Eval: (predictions, raw maps), see `decode`; the rows of
    the predictions run over levels, then anchors, then y, then x.
    """

    m: Any
    ia: Any
    im: Any
    anchors: Tensor  # [L, A, 2], in cells of the level, as the official state dict has them

    def __init__(self, classes: int, widths: tuple[int, ...]):
        super().__init__()
        self.outputs, self.strides = 5 + classes, STRIDES
        pixels = torch.tensor(ANCHORS, dtype=torch.float32)
        self.register_buffer("anchors", pixels / torch.tensor(STRIDES)[:, None, None])
        per_cell = pixels.shape[1] * self.outputs
        self.m = nn.ModuleList(nn.Conv2d(width, per_cell, 1) for width in widths)
        self.ia = nn.ModuleList(Implicit(width, 0.0) for width in widths)
        self.im = nn.ModuleList(Implicit(per_cell, 1.0) for _ in widths)
        self.initialise_biases()

    def forward(self, *maps: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        raw = [self._level(i, x) for i, x in enumerate(maps)]
        if self.training:
            return raw
        levels = zip(raw, self.anchors, self.strides, strict=True)
        return torch.cat([decode(r, a, s).flatten(1, 3) for r, a, s in levels], 1), raw

    def _level(self, i: int, x: Tensor) -> Tensor:
        """[B, width, H, W] → [B, A, H, W, 5 + C]"""
        if len(self.ia):  # gone after `fuse`
            y = self.im[i].implicit * self.m[i](self.ia[i].implicit + x)
        else:
            y = self.m[i](x)
        b, _, h, w = y.shape
        return y.view(b, self.anchors.shape[1], self.outputs, h, w).permute(0, 1, 3, 4, 2)

    @torch.no_grad()
    def initialise_biases(self) -> None:
        """Adds the priors: 8 objects in a 640-pixel image, all classes alike (focal loss, arXiv 1708.02002, 3.3)."""
        classes = self.outputs - 5
        for conv, stride in zip(self.m, self.strides, strict=True):
            bias = conv.bias.view(-1, self.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (classes - 0.99))

    @torch.no_grad()
    def fuse(self) -> None:
        """Puts the implicit vectors into the convolutions: im · (W(x + ia) + b) = (im W) x + im (W ia + b)."""
        for conv, add, multiply in zip(self.m, self.ia, self.im, strict=False):
            gain = multiply.implicit.flatten()
            conv.bias.copy_(gain * (conv.bias + conv.weight.flatten(1) @ add.implicit.flatten()))
            conv.weight *= gain[:, None, None, None]
        self.ia, self.im = nn.ModuleList(), nn.ModuleList()


def decode(raw: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Raw [B, A, H, W, 5 + C], anchors [A, 2] in cells → cx, cy, w, h in input pixels, objectness, class probabilities.

    Same shape and dtype. A centre may lie half a cell outside its own, a side is at most four times the anchor's.
    """
    p = raw.sigmoid()
    _, _, h, w, _ = p.shape
    xy = (2 * p[..., :2] - 0.5 + cells(h, w, p)) * stride
    wh = (2 * p[..., 2:4]) ** 2 * (anchors * stride)[:, None, None]
    return torch.cat([xy, wh, p[..., 4:]], -1)


def cells(height: int, width: int, like: Tensor) -> Tensor:
    """[H, W, 2]: the x and y of every cell, with the device and dtype of `like`."""
    options = {"device": like.device, "dtype": like.dtype}
    y, x = torch.meshgrid(torch.arange(height, **options), torch.arange(width, **options), indexing="ij")
    return torch.stack([x, y], -1)
