"""The dense net teaches a pruned one within ultralytics' trainer: a further part of the loss that it computes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.data.types import Batch
from dcodp.training.distillation import Distillation, reading

PART = "distill_loss"  # as ultralytics' trainer lists it, beside box_loss and the like


class Teaching:
    """Holds what is compared; `attach` puts it into a trainer's net once that is set up.

    The trainer's averaged net is a copy made before, so nothing of this is saved or validated.
    """

    def __init__(self, term: Distillation):
        self.term = term
        self.images: Tensor | None = None

    def attach(self, network: Any) -> None:
        """From now on `network` computes its loss with the teacher's part. Its first layer sees the images."""
        criterion = network.criterion if getattr(network, "criterion", None) is not None else network.init_criterion()
        self._open = ExitStack()
        self._heard = self._open.enter_context(reading(network, self.term.kept))
        self._open.callback(network.model[0].register_forward_pre_hook(self._see).remove)
        self._open.callback(setattr, network, "criterion", criterion)
        network.criterion = _Taught(criterion, self, network)

    def detach(self) -> None:
        """Leaves the net as it was: what is copied from it now has no teacher."""
        self._open.close()
        self.images = None

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.images = args[0] if module.training else None

    def part(self, network: nn.Module, outputs: Any) -> Tensor:
        """What the teacher adds for the batch that `network` has just seen, a mean over its images."""
        heard = {name: list(maps) for name, maps in self._heard.items()}
        self._heard.clear()
        if self.images is None:
            return torch.zeros((), device=next(network.parameters()).device)
        nothing = self.images.new_zeros(0)
        batch = Batch(self.images, nothing.view(0, 4), nothing.long(), nothing.long())
        with torch.autocast(self.images.device.type, enabled=False):
            parts = self.term.parts(network, batch, outputs, heard)
        return torch.stack(list(parts.values())).sum()


class _Taught:
    """Stands for ultralytics' loss, whatever its form: a dictionary of parts, or a sum (of parts, times the number of
    images) with the parts to be shown."""

    def __init__(self, criterion: Any, teaching: Teaching, network: nn.Module):
        self.criterion, self.teaching, self.network = criterion, teaching, network

    def __call__(self, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = self.criterion(outputs, *args, **kwargs)
        taught = self.teaching.part(self.network, outputs)
        if isinstance(found, dict):
            return {**found, PART: taught}
        loss, shown = found
        images = (
            1 if isinstance(outputs, Tensor) else len(self.teaching.images if self.teaching.images is not None else ())
        )
        return loss.sum() + taught * images, {**shown, PART: taught.detach()}

    def __getattr__(self, name: str) -> Any:
        if name == "criterion":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.criterion, name)
