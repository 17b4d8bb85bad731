"""YOLOv7 P5 without auxiliary heads (arXiv 2207.02696, figure 2 and appendix A) as a table of layers.

The layers are numbered as the official ones, `model.0 … model.105`, so official state dicts load by name.
"""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from dcodp.detectors.families.yolov7.blocks import SPPCSPC, Concat, ConvBlock, RepConv
from dcodp.detectors.families.yolov7.head import IDetect


class YOLOv7(nn.Module):
    """images [B, 3, H, W] in 0 … 1, sides multiples of 32 → see `IDetect`."""

    def __init__(self, layers: list[nn.Module], sources: list[tuple[int, ...]]):
        super().__init__()
        self.model = nn.ModuleList(layers)
        self.sources = sources  # which layers' outputs each layer reads; -1 is the image
        self.last_reader = {source: i for i, sources in enumerate(sources) for source in sources}

    def forward(self, images: Tensor) -> Any:
        maps = {-1: images}
        for i, (layer, sources) in enumerate(zip(self.model, self.sources, strict=True)):
            maps[i] = layer(*(maps[source] for source in sources))
            for source in set(sources):
                if self.last_reader[source] == i:
                    del maps[source]  # frees the memory of maps that nobody reads any more
        return maps[len(self.model) - 1]

    @property
    def head(self) -> IDetect:
        return self.model[-1]  # type: ignore[return-value]


def yolov7(classes: int, width: float = 1.0) -> YOLOv7:
    """YOLOv7 for `classes` classes; `width` scales all channels (to multiples of 8), the topology stays."""
    table = _Table(width)
    p3, p4, p5 = _backbone(table)
    _neck(table, p3, p4, p5, classes)
    return YOLOv7(table.layers, table.sources)


def fuse(network: YOLOv7) -> YOLOv7:
    """A copy for inference: batch norms, RepConv branches and implicit vectors folded into the convolutions."""
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, ConvBlock | RepConv | IDetect):
            module.fuse()
    return network


class _Table:
    """The layers so far, what each reads and how many channels it gives. Each adding method returns the number."""

    def __init__(self, width: float):
        self.width = width
        self.layers: list[nn.Module] = []
        self.sources: list[tuple[int, ...]] = []
        self.channels: dict[int, int] = {-1: 3}

    def scaled(self, channels: int) -> int:
        return math.ceil(channels * self.width / 8) * 8

    def add(self, layer: nn.Module, channels: int, *sources: int) -> int:
        self.layers.append(layer)
        self.sources.append(sources)
        self.channels[len(self.layers) - 1] = channels
        return len(self.layers) - 1

    @property
    def last(self) -> int:
        return len(self.layers) - 1

    def block(self, kind: Any, channels: int, *options: int, source: int | None = None) -> int:
        """A block built as kind(inputs, outputs, *options), reading `source` (the last layer)."""
        source, channels = self.last if source is None else source, self.scaled(channels)
        return self.add(kind(self.channels[source], channels, *options), channels, source)

    def conv(self, channels: int, kernel: int = 1, stride: int = 1, source: int | None = None) -> int:
        return self.block(ConvBlock, channels, kernel, stride, source=source)

    def concat(self, *sources: int) -> int:
        return self.add(Concat(), sum(self.channels[s] for s in sources), *sources)

    def resize(self, layer: nn.Module, source: int) -> int:
        return self.add(layer, self.channels[source], source)


def _backbone(table: _Table) -> tuple[int, int, int]:
    """Layers 0-50; the numbers of the maps at strides 8, 16 and 32."""
    table.conv(32, 3)
    table.conv(64, 3, 2)
    table.conv(64, 3)
    table.conv(128, 3, 2)
    _elan(table, 64, 256)
    _halve(table, 128)
    p3 = _elan(table, 128, 512)
    _halve(table, 256)
    p4 = _elan(table, 256, 1024)
    _halve(table, 512)
    return p3, p4, _elan(table, 256, 1024)


def _neck(table: _Table, p3: int, p4: int, p5: int, classes: int) -> None:
    """Layers 51-105: pyramid pooling, top-down and bottom-up paths, head."""
    top = table.block(SPPCSPC, 512, source=p5)
    _double(table, 256, p4)
    middle = _elan_head(table, 256, 256)
    _double(table, 128, p3)
    small = _elan_head(table, 128, 128)
    _halve(table, 128, middle)
    medium = _elan_head(table, 256, 256)
    _halve(table, 256, top)
    large = _elan_head(table, 512, 512)
    levels = [table.block(RepConv, c, source=s) for c, s in ((256, small), (512, medium), (1024, large))]
    table.add(IDetect(classes, tuple(table.channels[i] for i in levels)), 0, *levels)


def _elan(table: _Table, hidden: int, outputs: int) -> int:
    """Efficient layer aggregation: two 1×1 paths, one with four 3×3 convolutions, every second map kept."""
    source = table.last
    path = [table.conv(hidden, source=source), table.conv(hidden, source=source)]
    path += [table.conv(hidden, 3) for _ in range(4)]
    table.concat(path[5], path[3], path[1], path[0])
    return table.conv(outputs)


def _elan_head(table: _Table, hidden: int, outputs: int) -> int:
    """ELAN of the neck: the 3×3 convolutions have half the width and every map is kept."""
    source = table.last
    path = [table.conv(hidden, source=source), table.conv(hidden, source=source)]
    path += [table.conv(hidden // 2, 3) for _ in range(4)]
    table.concat(*reversed(path))
    return table.conv(outputs)


def _halve(table: _Table, channels: int, skip: int | None = None) -> int:
    """MP: half the size by max pooling on one path and by a strided convolution on the other; `skip` is joined."""
    source = table.last
    table.resize(nn.MaxPool2d(2, 2), source)
    pooled = table.conv(channels)
    table.conv(channels, source=source)
    strided = table.conv(channels, 3, 2)
    return table.concat(strided, pooled, *([] if skip is None else [skip]))


def _double(table: _Table, channels: int, lateral: int) -> int:
    """Twice the size (nearest), joined behind a 1×1 convolution of the backbone's map."""
    upsampled = table.resize(nn.Upsample(scale_factor=2, mode="nearest"), table.conv(channels))
    return table.concat(table.conv(channels, source=lateral), upsampled)
