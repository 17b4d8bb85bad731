"""Second moments of what layers read: from them follows how well the channels that stay can stand in for others.

x [C + 1] is a layer's input at one position, with a constant 1 behind it. Kept are Σ x xᵀ over sampled positions, of
three images in four to fit on, and of the fourth to tell by whether a fit holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dcodp.calibration.statistic import Part, Statistic, Subject, Sums, index_of, seed_of
from dcodp.calibration.watch import Read
from dcodp.graph import Group

POSITIONS = 100  # sampled per image
HELD_OUT = 4  # one image in so many is not fitted on
LARGEST = 4096  # inputs of one layer: its matrix then takes 128 MB
FIT, TEST = "fit", "held out"
REMADE, WEIGHT = "re-assembled", "weight"


@dataclass(frozen=True)
class InputMoments(Statistic):
    """Per consumer: Σ x xᵀ, [groups, C + 1, C + 1] float64 with C inputs in each of a convolution's groups.

    Behind the flattening of a map the coordinates of a channel are its positions. Of a weight that is re-assembled from
    its parameter the weight itself is kept as well, and nothing that a repair could fit by. Layers of more than LARGEST
    inputs and grouped transposed convolutions are passed over.
    """

    sees: ClassVar[str] = "consumer inputs"

    def read(self, subject: Subject) -> Iterable[str]:
        return subject.sites("in")

    def on_read(self, sums: Sums, subject: Subject, read: Read) -> None:
        width = fold(subject, read.name)
        inputs = read.weight.size(1) // width
        if inputs > LARGEST or (read.transposed and read.groups > 1):
            return
        generator = torch.Generator().manual_seed(seed_of(subject.seed, read.batch, read.name, read.use, "moments"))
        x = read.x if width == 1 else read.x.reshape(len(read.x), inputs, width, 1)
        samples = sampled(x, generator)  # [images, positions, C · groups]
        if read.remade:
            sums.add(f"{read.name} {REMADE}", second_moments(samples.flatten(0, 1), inputs))
            sums[f"{read.name} {WEIGHT}"] = read.weight.detach().double().transpose(0, 1).flatten(1)
            return
        images = len(samples)
        last = (torch.arange(images) + read.batch * images) % HELD_OUT == HELD_OUT - 1
        for key, chosen in ((FIT, samples[~last]), (TEST, samples[last])):
            if len(chosen):
                sums.add(f"{read.name} {key}", second_moments(chosen.flatten(0, 1), inputs))

    def of(self, sums: Sums, weight: str) -> tuple[Tensor, Tensor] | None:
        """What to fit on and what to test by, None for a layer that was never seen; with too few images the same."""
        fit = sums.get(f"{weight} {FIT}", sums.get(f"{weight} {TEST}"))
        return None if fit is None else (fit, sums.get(f"{weight} {TEST}", fit))

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        """Of each consumer its weight, input channels first [C, F · k], and the mean of x xᵀ."""
        for site in group.sites:
            moments = sums.get(f"{site.tensor} {REMADE}") if site.role == "in" else None
            if moments is not None:
                yield Part(
                    f"{site.tensor} {site.dim}",
                    (sums[f"{site.tensor} {WEIGHT}"], moments / moments[:, -1:, -1:]),
                    index_of(site),
                )
                continue
            found = self.of(sums, site.tensor) if site.role == "in" else None
            if found is not None and site.tensor in subject.parameters:
                width = fold(subject, site.tensor)
                weight = subject.parameters[site.tensor].detach().double().movedim(site.dim, 0)
                weight = weight.reshape(len(weight) // width, -1)
                total = found[0] if found[0] is found[1] else found[0] + found[1]
                index = index_of(site) if width == 1 else index_of(site)[:, :1] // width
                yield Part(f"{site.tensor} {site.dim}", (weight, total / total[:, -1:, -1:]), index)


def fold(subject: Subject, weight: str) -> int:
    """How many neighbouring inputs of a linear layer are one channel, behind the flattening of a map; else 1.

    They are then seen as positions of that channel, as those of a map are.
    """
    sites = [site for _, site in subject.sites("in")[weight]]
    shape = subject.graph.shapes[weight]
    width = sites[0].index.shape[1]
    if len(shape) != 2 or width == 1 or shape[sites[0].dim] % width:
        return 1
    in_order = (np.array_equal(s.index, s.index[:, :1] + np.arange(s.index.shape[1])) for s in sites)
    aligned = all(s.index.shape[1] == width and not (s.index[:, 0] % width).any() for s in sites)
    return width if aligned and all(in_order) else 1


def sampled(x: Tensor, generator: torch.Generator) -> Tensor:
    """x [B, C, H, W] → the channels at POSITIONS of each image, [B, P, C] float64."""
    flat = x.detach().flatten(2)
    if flat.size(2) > POSITIONS:
        drawn = torch.randint(flat.size(2), (len(flat), POSITIONS), generator=generator).to(x.device)
        flat = flat.gather(2, drawn[:, None].expand(-1, flat.size(1), -1))
    return flat.double().mT


def second_moments(samples: Tensor, inputs: int) -> Tensor:
    """samples [S, C · groups] → Σ x xᵀ of each group's inputs and a constant, [groups, C + 1, C + 1]."""
    by_group = samples.unflatten(1, (-1, inputs)).transpose(0, 1)
    extended = torch.cat([by_group, by_group.new_ones(*by_group.shape[:2], 1)], dim=2)
    return extended.mT @ extended
