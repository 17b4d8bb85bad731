"""What a detector must offer: the five things that the pipeline asks of it, whatever its architecture."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Batch:
    """One training batch, the same for all detectors.

    `images` are letterboxed RGB. `boxes` are cx, cy, w, h as fractions of the letterboxed image.
    """

    images: Tensor  # [B, 3, S, S] uint8
    boxes: Tensor  # [n, 4] float32
    labels: Tensor  # [n] int64
    image_index: Tensor  # [n] int64, the row of `images` that each box belongs to

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))


@dataclass
class Detections:
    """What was found in one image, highest score first; boxes are xmin, ymin, xmax, ymax in input pixels."""

    boxes: Tensor  # [n, 4] float32
    scores: Tensor  # [n] float32
    labels: Tensor  # [n] int64


@dataclass(frozen=True)
class DecodeSettings:
    """Thresholds between raw predictions and detections (defaults: the paper's validation settings)."""

    confidence: float = 0.001
    iou: float = 0.6
    max_detections: int = 300
    multi_label: bool = False  # True: every class above the threshold is a candidate, not only a box's best one


class Detector(ABC):
    """A network with what is known about it. Holds no training state; swapping the network gives a new detector.

    `fresh` is the share of its classes that trained weights did not know and that no training has seen since.
    """

    fresh: float = 0.0

    def __init__(self, name: str, network: nn.Module, classes: tuple[str, ...]):
        self.name, self.network, self.classes = name, network, classes

    def with_network(self, network: nn.Module) -> Detector:
        """The same detector around another network, for instance a pruned one."""
        other = copy.copy(self)
        other.network = network
        return other

    @abstractmethod
    def example_inputs(self, image_size: int, batch: int = 1) -> tuple[Any, ...]:
        """Inputs for one call of `network` (on the network's device and dtype), for tracing and counting FLOPs."""

    @abstractmethod
    def outputs(self, result: Any) -> Any:
        """The part of `network`'s eval-mode result that matters; the rest (features passed along) may change shape."""

    @contextmanager
    def most_work(self) -> Iterator[None]:
        """Within, one call of `network` is as much work as any call can be, whatever the weights find in the image.

        Costs are measured so; a detector whose work depends on what it finds says here how to find the most.
        """
        yield

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, mean over images, and its named parts (detached). `network` is in train mode."""

    @abstractmethod
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        """images [B, 3, S, S] uint8, letterboxed RGB → one `Detections` per image. `network` is in eval mode."""
