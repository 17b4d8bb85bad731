"""What needs no pass: weights as they are, scales of batch norms, random draws, norms of what consumers read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from dcodp.calibration.statistic import OfLayers, Part, Statistic, Subject, Sums, index_of, rows, seed_of
from dcodp.graph import Group


@dataclass(frozen=True)
class Weights(OfLayers):
    """A layer's weight, a filter (of consumers: an input channel) per row: [C, fan-in] float64."""

    sees: ClassVar[str] = "weights"

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        for site in group.sites:
            if site.role == self.role and site.tensor in subject.parameters:
                weight = rows(subject.parameters[site.tensor].detach().double().cpu(), site.dim)
                yield Part(f"{site.tensor} {site.dim}", (weight,), index_of(site))


@dataclass(frozen=True)
class Scales(Statistic):
    """A batch norm's scales: [C] float64."""

    sees: ClassVar[str] = "weights"

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        for site in group.sites:
            if site.role == "vector" and site.tensor in subject.scales:
                yield Part(site.tensor, (subject.scales[site.tensor].detach().double().cpu(),), index_of(site))


@dataclass(frozen=True)
class Draws(Statistic):
    """A group's number of channels and a generator of its own, from the seed and the group's name."""

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        yield Part(group.name, (group.channels, torch.Generator().manual_seed(seed_of(subject.seed, group.name))))
