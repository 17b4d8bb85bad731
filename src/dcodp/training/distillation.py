"""The dense net teaches the pruned one: every map of the small net has its counterpart there, at the kept channels.

A layer reads the same map in both nets, and the plan tells which of its input channels are left. So what layers read
can be compared as it is, through concatenations and residual sums alike, without any adapter (METHOD, 4b).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.data.types import Batch
from dcodp.detectors.base import Detector
from dcodp.detectors.imitation import unexplained
from dcodp.errors import InputError
from dcodp.graph import CouplingGraph
from dcodp.pruning import PrunePlan
from dcodp.training.precision import exactly, in_full, quickly

BLOCKS = 16  # readers whose maps are compared, at most
Maps = dict[str, list[Tensor]]  # what each reader was given, call by call


@dataclass(eq=False)
class Distillation:
    """A term of the loss: `weight` times what the teacher's head says otherwise, and what its maps hold otherwise.

    "features" is `features` times the sum over blocks of ‖F_small − F_dense[keep]‖² / var(F_dense[keep]), the other
    parts are those of the detector's `imitation`. The teacher is a frozen copy in eval mode, no part of what is trained
    or saved; the net that learns is in train mode, so even a perfect copy differs by its batches' statistics.
    """

    teacher: Detector
    kept: dict[str, Tensor | None]  # reader → the channels of its input that are left, None for all of them
    weight: float
    features: float = 1.0
    _heard: Maps = field(default_factory=dict, repr=False)

    @contextmanager
    def listening(self, network: nn.Module) -> Iterator[None]:
        """Open while the net that learns makes its outputs."""
        with reading(network, self.kept) as self._heard:
            yield

    def __call__(self, network: nn.Module, batch: Batch, outputs: Any) -> dict[str, Tensor]:
        """The weighted parts for the batch whose outputs were made while it was listening."""
        found, self._heard = self._heard, {}
        return self.parts(network, batch, outputs, found)

    def parts(self, network: nn.Module, batch: Batch, outputs: Any, found: Maps) -> dict[str, Tensor]:
        """As the call, for whoever has listened himself: `found` is what was read while the outputs were made."""
        self._move_to(batch.images.device)
        with torch.no_grad(), quickly(batch.images.device), reading(self.teacher.network, self.kept) as taught:
            lesson = in_full(self.teacher.lesson(batch, outputs))
        with exactly(batch.images.device):
            maps = self.features * self._features(network, found, taught)
            parts = {"features": maps, **self.teacher.imitation(outputs, lesson)}
        return {name: self.weight * part for name, part in parts.items()}

    def _features(self, network: nn.Module, found: Maps, taught: Maps) -> Tensor:
        errors = [torch.zeros((), device=next(network.parameters()).device)]
        for name, kept in self.kept.items():
            channel = -1 if isinstance(network.get_submodule(name), nn.Linear) else 1
            if len(found.get(name, [])) > len(taught.get(name, [])):
                continue  # a layer that heads call more often in training than in evaluation: no counterparts
            pairs = list(zip(found.get(name, []), taught.get(name, []), strict=True))
            for small, dense in pairs:
                wanted = dense if kept is None else _channels(dense, kept, channel)
                errors.append(unexplained(small, wanted, channel) / len(pairs))
        return torch.stack(errors).sum()

    def _move_to(self, device: torch.device) -> None:
        """Each process of a training has a device of its own."""
        if next(self.teacher.network.parameters()).device != device:
            self.teacher.network.to(device)
        self.kept = {name: kept if kept is None else kept.to(device) for name, kept in self.kept.items()}


def distillation(
    dense: Detector, small: nn.Module, graph: CouplingGraph, plan: PrunePlan, weight: float, features: float = 1.0
) -> Distillation:
    """What `dense` teaches `small`, which `plan` made of it; `graph` is a trace of either. Raises InputError where the
    plan is of another net. `features=0`: by what its head says alone, and no maps are kept."""
    kept = {name: _kept(small, name, plan) for name in (readers(graph, small) if features else ())}
    network: Any = dense.merged(copy.deepcopy(dense.network).eval()).requires_grad_(False)
    return Distillation(dense.with_network(network.to(memory_format=torch.channels_last)), kept, weight, features)


def readers(graph: CouplingGraph, network: nn.Module) -> list[str]:
    """At most `BLOCKS` layers, in order of execution: the last before the size of the maps changes, every n-th of them
    counted from the end. Convolutions and linear layers that read every channel and not the image itself."""
    modules = dict(network.named_modules())
    order = [name for name in graph.maps if graph.parents.get(name) and _reads_all(modules.get(name))]
    last = [list(run)[-1] for _, run in groupby(order, graph.maps.__getitem__)]
    every = -(-len(last) // BLOCKS) or 1
    return last[::-1][::every][::-1]


def _reads_all(module: nn.Module | None) -> bool:
    """A layer that is trained, and whose inputs are dimension 1 of its weight."""
    if not isinstance(module, nn.Linear | nn.Conv2d):
        return False
    return module.weight.requires_grad and getattr(module, "groups", 1) == 1


def _kept(small: nn.Module, name: str, plan: PrunePlan) -> Tensor | None:
    weight = f"{name}.weight"
    kept, width = plan.keep.get(weight, {}).get(1), small.get_parameter(weight).shape[1]
    left = width if kept is None else len(kept)
    if left != width:
        raise InputError(f"{name} reads {width} channels, the plan leaves {left}; give the plan that made this net")
    return None if kept is None else torch.as_tensor(kept)


def _channels(maps: Tensor, kept: Tensor, channel: int) -> Tensor:
    """These channels, in the order in memory that `maps` have, so that what is compared with them lies as they do.
    Where channels lie side by side, rows of them are chosen from: several times as fast as `index_select(1)`."""
    if maps.dim() != 4 or not maps.is_contiguous(memory_format=torch.channels_last):
        return maps.index_select(channel, kept)
    places = maps.permute(0, 2, 3, 1)
    rows = places.flatten(0, 2).float().index_select(1, kept)  # in 16 bits it takes longer than with the copy
    return rows.unflatten(0, places.shape[:3]).permute(0, 3, 1, 2)


@contextmanager
def reading(network: nn.Module, names: Mapping[str, Any] | Collection[str]) -> Iterator[Maps]:
    """Within, what these layers are given, in order of their calls."""
    maps: Maps = {}

    def listener(name: str) -> Any:
        return lambda _module, args: maps.setdefault(name, []).append(args[0])

    handles = [network.get_submodule(name).register_forward_pre_hook(listener(name)) for name in names]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
