"""What a group's channels contribute to their consumers' outputs, at sampled positions: moments for ThiNet & Co."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dcodp.calibration.sampling import draw_positions, group_gram, output_energy, patches
from dcodp.calibration.statistic import Part, Statistic, Subject, Sums, index_of, reading, seed_of
from dcodp.calibration.watch import Read
from dcodp.graph import Group


@dataclass(frozen=True)
class Contributions(Statistic):
    """Per consumer: the energy of its sampled outputs, and Xᵀ X [channels, channels] of every group that it reads.

    X as in importance/thinet.py. A group with several consumers is told by the sum of their matrices, each divided by
    the consumer's output energy, so that every consumer counts by the share of its output that would be lost.
    Consumers are linear layers and one- or two-dimensional convolutions; grouped, deformable and three-dimensional
    ones are passed over. Of a group that none of the former reads nothing is said.
    """

    sees: ClassVar[str] = "consumer inputs"

    def read(self, subject: Subject) -> Iterable[str]:
        return subject.sites("in")

    def on_read(self, sums: Sums, subject: Subject, read: Read) -> None:
        if read.geometry is None:
            return
        # Positions depend on the seed, the batch and the layer's application, and on no other statistic.
        generator = torch.Generator().manual_seed(seed_of(subject.seed, read.batch, read.name, read.use))
        inputs = patches(read, draw_positions(read, subject.locations, generator))
        weight = read.weight.detach().double().flatten(2)
        sums.add(read.name, output_energy(inputs, weight))
        for group, site in subject.sites("in")[read.name]:
            sums.add(reading(group, read.name), group_gram(inputs, weight, index_of(site).to(inputs.device)))

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        consumers = [s.tensor for s in group.sites if s.role == "in" and reading(group, s.tensor) in sums]
        shares = [sums[reading(group, name)] / sums[name] for name in consumers if sums[name] > 0]
        if shares:
            yield Part(group.name, (torch.stack(shares).sum(0).cpu(),))

    def grams(self, sums: Sums, subject: Subject) -> dict[str, Tensor]:
        """`reading(group, weight of the consumer)` → Xᵀ X [channels, channels] float64."""
        entries = subject.sites("in").items()
        keys = [reading(group, name) for name, groups in entries for group, _ in groups]
        return {key: sums[key] for key in keys if key in sums}
