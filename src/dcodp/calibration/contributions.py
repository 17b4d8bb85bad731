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


def remade(group: Group, weight: str) -> str:
    """The key for what is read by a weight that is re-assembled from the parameter of this name."""
    return f"{reading(group, weight)} re-assembled"


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
            key = remade(group, read.name) if read.remade else reading(group, read.name)
            sums.add(key, group_gram(inputs, weight, index_of(site).to(inputs.device)))

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        names = [site.tensor for site in group.sites if site.role == "in"]
        known = [(name, key) for name in names for key in (reading(group, name), remade(group, name)) if key in sums]
        shares = [sums[key] / sums[name] for name, key in known if sums[name] > 0]
        if shares:
            yield Part(group.name, (torch.stack(shares).sum(0).cpu(),))

    def grams(self, sums: Sums, subject: Subject) -> dict[str, Tensor]:
        """`reading(group, weight of the consumer)` → Xᵀ X [channels, channels] float64.

        Without weights that are re-assembled from their parameters: who changes these does not know what comes of it.
        """
        entries = subject.sites("in").items()
        keys = [reading(group, name) for name, groups in entries for group, _ in groups]
        return {key: sums[key] for key in keys if key in sums}
