"""What layers' feature maps say, after normalisation and activation: scores averaged over images, inner products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dcodp.calibration.inner_products import gram
from dcodp.calibration.statistic import (
    OfLayers,
    Part,
    Subject,
    Sums,
    group_maps,
    index_of,
    mean_of,
    reading,
    with_count,
)
from dcodp.calibration.watch import Read
from dcodp.graph import Group


def always_one(maps: Tensor) -> Tensor:
    """[B, C, H, W] → [B, C]"""
    return maps.new_ones(maps.shape[:2])


@dataclass(frozen=True)
class _OfMaps(OfLayers):
    """The maps of the layers that write a group's channels, or the inputs of those that read them."""

    sees: ClassVar[str] = "maps"

    def produced(self, subject: Subject) -> Iterable[str]:
        return subject.sites("out") if self.role == "out" else ()

    def read(self, subject: Subject) -> Iterable[str]:
        return subject.sites("in") if self.role == "in" else ()


@dataclass(frozen=True)
class MapScores(_OfMaps):
    """The mean over images of a score of each channel's map: `per_image` takes [B, C, H, W] to [B, C].

    The rows of a linear layer come as the positions of one image for each batch, [1, C, N, 1], since it is not known
    which rows belong to which image; its scores therefore depend on the batch size. `planar`: the score needs maps
    with a height and a width, so that linear layers and one-pixel maps have none.
    """

    per_image: Callable[[Tensor], Tensor] = always_one
    planar: bool = False

    def on_map(self, sums: Sums, subject: Subject, name: str, maps: Tensor) -> None:
        if self._says_something(maps):
            sums.add(name, with_count(self.per_image(maps)))

    def on_read(self, sums: Sums, subject: Subject, read: Read) -> None:
        for group, site in subject.sites("in")[read.name] if self._says_something(read.maps) else ():
            sums.add(reading(group, read.name), with_count(self.per_image(group_maps(read.maps, site))))

    def _says_something(self, maps: Tensor) -> bool:
        return not self.planar or min(maps.shape[2:]) > 1

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        for site in (site for site in group.sites if site.role == self.role):
            entry = sums.get(reading(group, site.tensor) if self.role == "in" else site.tensor)
            if entry is None:  # the layer never ran, or has no planar maps
                continue
            if self.role == "in":
                yield Part(site.tensor, (mean_of(entry),))
            elif len(entry) - 1 == subject.graph.shapes[site.tensor][site.dim]:  # else grouped and transposed
                yield Part(site.tensor, (mean_of(entry),), index_of(site))


@dataclass(frozen=True)
class MapGrams(_OfMaps):
    """A Aᵀ [channels, channels] float64: row c of A holds channel c's maps in all layers of the group, all images
    side by side."""

    def on_map(self, sums: Sums, subject: Subject, name: str, maps: Tensor) -> None:
        for group, site in subject.sites("out")[name]:
            if maps.size(1) == subject.graph.shapes[name][site.dim]:
                self._add(sums, group, group_maps(maps, site))

    def on_read(self, sums: Sums, subject: Subject, read: Read) -> None:
        for group, site in subject.sites("in")[read.name]:
            self._add(sums, group, group_maps(read.maps, site))

    def _add(self, sums: Sums, group: Group, maps: Tensor) -> None:
        for image in maps.split(1):  # one matrix at a time
            sums.add(group.name, gram(image)[0])

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        if group.name in sums:
            yield Part(group.name, (sums[group.name].cpu(),))
