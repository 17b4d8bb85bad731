"""What collectors have in common: running sums over calibration batches, and from sites' scores to a group's.

A collector keeps running sums only, float64 tensors whose number and size do not depend on the images. From the
scores of a group's sites to one score per channel, `aggregate` says:

sum, mean, max   over the coordinates of the channel in all layers that produce it (sum: the paper's way)
consumer         the criterion applied to what the consumers read (for weights: the slices that read the channel),
                 averaged over consumers
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcodp.graph import CouplingGraph, Group, Site
from dcodp.importance.criterion import Criterion
from dcodp.importance.observe import Read


@dataclass(frozen=True, eq=False)
class Setting:
    """What all collectors of a pass share."""

    network: nn.Module
    graph: CouplingGraph
    aggregate: str = "sum"
    seed: int = 0
    locations: int = 10  # sampled output positions per image and consumer

    @property
    def role(self) -> str:
        """The role of the sites that are scored."""
        return "in" if self.aggregate == "consumer" else "out"

    def sites(self, role: str) -> dict[str, list[tuple[Group, Site]]]:
        """Weight name → the groups that its dimension of this role carries."""
        found: dict[str, list[tuple[Group, Site]]] = defaultdict(list)
        for group in self.graph.groups:
            for site in group.sites:
                if site.role == role:
                    found[site.tensor].append((group, site))
        return dict(found)


class Collector:
    """Nothing collected: the base of all. `produced`, `read` and `differentiated` name the weights it wants to see."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.sums: dict[str, Tensor] = {}
        self.produced: dict[str, list[tuple[Group, Site]]] = {}
        self.read: dict[str, list[tuple[Group, Site]]] = {}
        self.differentiated: dict[str, list[tuple[Group, Site]]] = {}

    def start(self, batch: int) -> None:
        """Batch number `batch` (from 0) begins."""

    def on_map(self, name: str, maps: Tensor) -> None:
        """maps [B, C, H, W] of the layer whose weight is `name`."""

    def on_read(self, read: Read) -> None:
        """A layer reads its input."""

    def on_gradient(self, name: str, weight: Tensor, grad: Tensor) -> None:
        """The loss's gradient in one weight."""

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        """[channels] float64, or None."""
        raise NotImplementedError

    def add(self, key: str, value: Tensor) -> None:
        before = self.sums.get(key)
        self.sums[key] = value if before is None else before.to(value.device) + value

    def join(self, group: Group, role: str, scores_of: Callable[[Site], Tensor | None]) -> Tensor | None:
        """One score per channel of a group from the scores of its sites' coordinates."""
        parts = [
            scores.cpu()[torch.from_numpy(site.index)]  # [channels, m]
            for site in group.sites
            if site.role == role and (scores := scores_of(site)) is not None
        ]
        if not parts:
            return None
        if self.setting.aggregate == "consumer":
            return torch.stack([part.sum(1) for part in parts]).mean(0)
        table = torch.cat(parts, dim=1)
        return {"sum": table.sum(1), "mean": table.mean(1), "max": table.amax(1)}[self.setting.aggregate]


def rows(tensor: Tensor, dim: int) -> Tensor:
    """One row per coordinate of a dimension: [..., C, ...] → [C, the rest]."""
    return tensor.movedim(dim, 0).flatten(1)


def group_maps(maps: Tensor, site: Site) -> Tensor:
    """maps [B, C, H, W] → [B, channels, m · H, W]: a channel that fills several coordinates is one larger map."""
    index = torch.from_numpy(site.index).to(maps.device)
    return maps[:, index].flatten(2, 3)


def seed_of(*parts: object) -> int:
    """A seed from numbers and names, the same on every machine."""
    return zlib.crc32(" ".join(map(str, parts)).encode())


def with_count(scores: Tensor) -> Tensor:
    """[B, C] → [C + 1]: the sum, and in a last entry the number of images."""
    scores = scores.double()
    return torch.cat([scores.sum(0), scores.new_tensor([float(len(scores))])])


def mean_of(entry: Tensor | None) -> Tensor | None:
    return None if entry is None else entry[:-1] / entry[-1]
