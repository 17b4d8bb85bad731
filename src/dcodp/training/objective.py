"""What a training minimises: the detector's loss, and further terms beside it or in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.data.types import Batch
from dcodp.detectors.base import Detector
from dcodp.training.precision import exactly, in_full

# Of the network, a batch and its outputs for that batch: a scalar, or several by name, to be added to the loss. What a
# term wants to see of the pass that makes the outputs it can listen to: its `listening(network)` is open meanwhile.
Term = Callable[[nn.Module, Batch, Any], Tensor | Mapping[str, Tensor]]


class Whole:
    """A batch as it is. Lightning walks through what a module is called with, dataclasses too, and in mixed precision
    rounds every float to 16 bits: a box's edges in bfloat16 come to lie on a grid of 1/256 of the image."""

    def __init__(self, batch: Batch):
        self.batch = batch


class Objective(nn.Module):
    """The loss as a module, so that the call goes through the wrapper of a multi-device training.

    Without `labels` the batch comes without its boxes, and the terms are all there is.
    """

    def __init__(self, detector: Detector, terms: Mapping[str, Term], labels: bool = True):
        super().__init__()
        self.network = detector.network
        self._detector, self._terms, self._labels = detector, terms, labels

    def forward(self, given: Whole) -> tuple[Tensor, dict]:
        """The scalar to minimise, and its parts by name, detached."""
        batch = self._detector.prepared(given.batch)
        if not self._labels:
            batch = Batch(batch.images, batch.boxes[:0], batch.labels[:0], batch.image_index[:0])
        with contextlib.ExitStack() as stack:
            for term in self._terms.values():
                if hasattr(term, "listening"):
                    stack.enter_context(term.listening(self.network))  # type: ignore[attr-defined]
            outputs = in_full(self._detector.training_outputs(batch))
        with exactly(batch.images.device):
            loss, parts = self._labelled(outputs, batch)
        parts = {name: part.detach() for name, part in parts.items()}
        for name, term in self._terms.items():
            for part, value in _named(name, term(self.network, batch, outputs)):
                loss, parts = loss + value, {**parts, part: value.detach()}
        return loss, parts

    def _labelled(self, outputs: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self._labels:
            return self._detector.loss_from(outputs, batch)
        return torch.zeros((), device=batch.images.device), {}


def _named(name: str, value: Tensor | Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """("distill", {"cls": x}) → ("distill_cls", x)."""
    if isinstance(value, Tensor):
        yield name, value
    else:
        yield from ((f"{name}_{part}", x) for part, x in value.items())
