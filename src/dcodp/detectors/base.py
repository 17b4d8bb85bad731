"""What a detector must offer: the five things that the pipeline asks of it, whatever its architecture."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from dcodp.data.types import Batch, Detections
from dcodp.detectors.imitation import unexplained_in_all
from dcodp.graph import CouplingGraph, trace
from dcodp.graph.tracing import result_tensors
from dcodp.pruning import PrunePlan

OF_BOXES = ("box", "dfl", "giou")  # in the name of a part of the loss: it is about where boxes are


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
    `pruned_by` leads from its dense architecture to the network where its weights were of a pruned one.
    """

    fresh: float = 0.0
    pruned_by: PrunePlan | None = None

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

    def coupling_graph(self, image_size: int) -> CouplingGraph:
        """The coupling groups of the network, traced on an image of this size; its raw outputs are kept."""
        with self.most_work():
            return trace(self.network, self.example_inputs(image_size), outputs=self.outputs)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, mean over images, and its named parts. `network` is in train mode."""
        return self.loss_from(self.training_outputs(batch), batch)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`loss` as "total", and as "boxes" those of its parts that say where boxes are, where it tells them apart."""
        total, parts = self.loss(batch)
        boxes = [part for name, part in parts.items() if any(mark in name for mark in OF_BOXES) and part.requires_grad]
        return {"total": total, **({"boxes": torch.stack(boxes).sum()} if boxes else {})}

    @property
    def comparable(self) -> bool:
        """Whether `compared` says the same places of two nets."""
        return True

    def compared(self, images: Tensor) -> list[Tensor]:
        """images [B, 3, S, S] uint8 → outputs by which two nets are compared, alike in shape whatever was pruned.

        `network` is in eval mode.
        """
        return result_tensors(self.outputs(self.network(images.to(next(self.network.parameters())) / 255)))

    def distance(self, mine: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """How far the outputs `mine` are from `theirs`, a scalar; 0 where they are the same."""
        shares = [(a - b).square().sum() / b.square().sum().clamp(min=1e-12) for a, b in zip(mine, theirs, strict=True)]
        return torch.stack(shares).sum()

    def losses_on(self, images: Tensor) -> Callable[[nn.Module], float]:
        """Another network in this one's place → how far its outputs for `images` are from those of this one."""
        with torch.no_grad():
            wanted = self.compared(images)

        @torch.no_grad()
        def lost(network: nn.Module) -> float:
            return float(self.distance(self.with_network(network.eval()).compared(images), wanted))

        return lost

    @abstractmethod
    def training_outputs(self, batch: Batch) -> Any:
        """What `network`, in train mode, says of a batch; given to `loss_from` and to further terms of the loss."""

    def prepared(self, batch: Batch) -> Batch:
        """The batch with its images as `training_outputs` and `lesson` need them, where both take them so too: what
        two nets read is converted once."""
        return batch

    @abstractmethod
    def loss_from(self, outputs: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss` of the outputs that are there already."""

    @torch.no_grad()
    def lesson(self, batch: Batch, outputs: Any) -> Any:
        """What `network`, in eval mode, teaches of a batch, to be held against `outputs`, another net's
        `training_outputs` of it (whose proposals, for instance, are to be judged)."""
        return self.training_outputs(batch)

    def imitation(self, outputs: Any, lesson: Any) -> dict[str, Tensor]:
        """How far a net's `training_outputs` are from a `lesson`: named scalars, zero where they agree.

        Unless a detector knows better, the error of each tensor over its variance.
        """
        said, taught = ([t for t in tree_flatten(o)[0] if isinstance(t, Tensor)] for o in (outputs, lesson))
        return {"outputs": unexplained_in_all(said, taught)}

    def merged(self, network: nn.Module) -> nn.Module:
        """`network`, in eval mode and for good, faster where the detector knows how: batch norms merged in place into
        the convolutions before them. Every layer keeps its name, and what it is given."""
        return network

    def in_shapes_of(self, other: Detector) -> Detector:
        """Of a detector just built without weights: the same with the shapes that weights have given `other`, but for
        what has been pruned of it."""
        return self

    @abstractmethod
    def predict(self, images: Tensor, settings: DecodeSettings) -> list[Detections]:
        """images [B, 3, S, S] uint8, letterboxed RGB → one `Detections` per image. `network` is in eval mode."""
