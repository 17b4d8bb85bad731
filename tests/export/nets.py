"""Small nets of which every kind of layer occurs."""

import torch
from torch import nn


class Mixed(nn.Module):
    """Plain, strided, depthwise and transposed convolutions, a concatenation, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(40, 8, 2, 2)
        self.head, self.act = nn.Linear(8, 4), nn.SiLU()

    def forward(self, x):
        x = self.act(self.stem(x))
        x = self.up(torch.cat([self.left(x), self.depth(x)], 1))
        return self.head(self.act(x).mean((2, 3)))


IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def chain(channels=64):
    """Three convolutions, the middle two of equal width."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
        nn.Conv2d(channels, 2, 1),
    ).eval()  # fmt: skip


def small_yolo(classes=2):
    """A net of ultralytics with its Detect head, for images of multiples of 8 pixels."""
    from dcodp import _ultralytics

    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    description = {
        "nc": classes,
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]],
                     [-1, 1, "Conv", [16, 3, 2]]],
        "head": [[[2, 3], 1, "Detect", ["nc"]]],
    }  # fmt: skip
    net = DetectionModel(description, nc=classes, verbose=False)
    with torch.no_grad():
        for branch in net.model[-1].cv3:
            branch[-1].bias += 8  # finds something
    return net.float().eval()
