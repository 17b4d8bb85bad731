"""What each kind of criterion collects in one pass over calibration batches, and the group scores that come of it.

`group_scores` returns None for a group about which the criterion says nothing; such a group is left unpruned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from dcodp.graph import Group, Site
from dcodp.importance.collector import (
    Collector,
    Setting,
    group_maps,
    mean_of,
    rows,
    seed_of,
    with_count,
)
from dcodp.importance.contributions import draw_positions, group_gram, output_energy, patches
from dcodp.importance.criterion import (
    ContributionCriterion,
    Criterion,
    DrawnCriterion,
    GradientCriterion,
    GramCriterion,
    MapCriterion,
    ScaleCriterion,
    WeightCriterion,
    check,
)
from dcodp.importance.nuclear import gram
from dcodp.importance.observe import Read
from dcodp.importance.rescale import reading
from dcodp.importance.slimming import batchnorm_scales


class Weights(Collector):
    """Weights as they are; needs no pass."""

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.parameters = dict(setting.network.named_parameters())
        self.scores: dict[tuple[str, int], Tensor] = {}

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        assert isinstance(criterion, WeightCriterion)
        return self.join(group, self.setting.role, lambda site: self._scores(criterion, site))

    def _scores(self, criterion: WeightCriterion, site: Site) -> Tensor | None:
        key = (site.tensor, site.dim)
        if site.tensor not in self.parameters:
            return None
        if key not in self.scores:
            weight = rows(self.parameters[site.tensor].detach().double().cpu(), site.dim)
            self.scores[key] = criterion.score(weight).double()
        return self.scores[key]


class Drawn(Collector):
    """Nothing: one draw for every group, from the seed and the group's name; needs no pass."""

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        assert isinstance(criterion, DrawnCriterion)
        generator = torch.Generator().manual_seed(seed_of(self.setting.seed, group.name))
        return criterion.score(group.channels, generator).double()


class Scales(Collector):
    """Scales of batch norms; needs no pass."""

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.scales = batchnorm_scales(setting.network)

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        assert isinstance(criterion, ScaleCriterion)

        def scores(site: Site) -> Tensor | None:
            scale = self.scales.get(site.tensor)
            return None if scale is None else criterion.score(scale.detach().double().cpu())

        return self.join(group, "vector", scores)


class Maps(Collector):
    """The mean over images of a score of each layer's maps."""

    def __init__(self, setting: Setting, criterion: MapCriterion):
        super().__init__(setting)
        self.criterion = criterion
        self.produced = setting.sites("out")

    def on_map(self, name: str, maps: Tensor) -> None:
        if _seen(self.criterion, maps):
            self.add(name, with_count(self.criterion.per_image(maps)))

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        return self.join(group, "out", self._scores)

    def _scores(self, site: Site) -> Tensor | None:
        """None where the layer never ran, has no planar maps, or its weight's dimension is not its channels (grouped
        transposed)."""
        mean = mean_of(self.sums.get(site.tensor))
        return mean if mean is not None and len(mean) == self.setting.graph.shapes[site.tensor][site.dim] else None


class ReadMaps(Collector):
    """The same of the maps that consumers read, restricted to the group's channels; aggregate=consumer."""

    def __init__(self, setting: Setting, criterion: MapCriterion):
        super().__init__(setting)
        self.criterion = criterion
        self.read = setting.sites("in")

    def on_read(self, read: Read) -> None:
        for group, site in self.read[read.name] if _seen(self.criterion, read.maps) else ():
            scores = self.criterion.per_image(group_maps(read.maps, site))
            self.add(reading(group, read.name), with_count(scores))

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        means = [mean_of(self.sums.get(reading(group, site.tensor))) for site in group.sites if site.role == "in"]
        known = [mean for mean in means if mean is not None]
        return torch.stack(known).mean(0).cpu() if known else None


def _seen(criterion: MapCriterion, maps: Tensor) -> bool:
    """Whether the criterion says anything about maps [B, C, H, W]."""
    return not criterion.planar or min(maps.shape[2:]) > 1


class Grams(Collector):
    """Inner products of a group's maps, summed over images, positions and sites: [channels, channels] per group."""

    def __init__(self, setting: Setting):
        super().__init__(setting)
        sites = setting.sites(setting.role)
        self.produced, self.read = ({}, sites) if setting.role == "in" else (sites, {})

    def on_map(self, name: str, maps: Tensor) -> None:
        for group, site in self.produced[name]:
            if maps.size(1) == self.setting.graph.shapes[name][site.dim]:
                self._add(group, group_maps(maps, site))

    def on_read(self, read: Read) -> None:
        for group, site in self.read[read.name]:
            self._add(group, group_maps(read.maps, site))

    def _add(self, group: Group, maps: Tensor) -> None:
        for image in maps.split(1):  # one matrix at a time
            self.add(group.name, gram(image)[0])

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        assert isinstance(criterion, GramCriterion)
        return criterion.score(self.sums[group.name].cpu()) if group.name in self.sums else None


class Contributions(Collector):
    """Per consumer: the energy of its sampled outputs, and Xᵀ X [channels, channels] of every group that it reads.

    A group with several consumers is scored by the sum of their matrices, each divided by the consumer's output
    energy, so that every consumer counts by the share of its output that would be lost.
    """

    def __init__(self, setting: Setting):
        super().__init__(setting)
        self.read = setting.sites("in")
        self.batch, self.uses = 0, Counter[str]()

    def start(self, batch: int) -> None:
        self.batch, self.uses = batch, Counter()

    def on_read(self, read: Read) -> None:
        if read.geometry is None:
            return
        inputs = patches(read, draw_positions(read, self.setting.locations, self._generator(read.name)))
        weight = read.weight.detach().double().flatten(2)
        self.add(read.name, output_energy(inputs, weight))
        for group, site in self.read[read.name]:
            index = torch.from_numpy(site.index).to(inputs.device)
            self.add(reading(group, read.name), group_gram(inputs, weight, index))

    def _generator(self, name: str) -> torch.Generator:
        """Positions depend on the seed, the batch and the layer's application, and on no other criterion."""
        self.uses[name] += 1
        return torch.Generator().manual_seed(seed_of(self.setting.seed, self.batch, name, self.uses[name]))

    def grams(self) -> dict[str, Tensor]:
        """`reading(group, weight of the consumer)` → Xᵀ X [channels, channels] float64, as `rescale` takes them."""
        keys = [reading(group, name) for name, entries in self.read.items() for group, _ in entries]
        return {key: self.sums[key] for key in keys if key in self.sums}

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        assert isinstance(criterion, ContributionCriterion)
        found = [s.tensor for s in group.sites if s.role == "in" and reading(group, s.tensor) in self.sums]
        parts = [self.sums[reading(group, name)] / self.sums[name] for name in found if self.sums[name] > 0]
        return criterion.score(torch.stack(parts).sum(0).cpu()) if parts else None


class Gradients(Collector):
    """The mean over batches of a score of each weight and its gradient."""

    def __init__(self, setting: Setting, score: Callable[[Tensor, Tensor], Tensor]):
        super().__init__(setting)
        self.score = score
        self.differentiated = setting.sites(setting.role)

    def on_gradient(self, name: str, weight: Tensor, grad: Tensor) -> None:
        for dim in {site.dim for _, site in self.differentiated[name]}:
            scores = self.score(rows(weight.detach(), dim), rows(grad, dim))
            self.add(f"{name} {dim}", with_count(scores[None]))

    def group_scores(self, criterion: Criterion, group: Group) -> Tensor | None:
        return self.join(group, self.setting.role, lambda site: mean_of(self.sums.get(f"{site.tensor} {site.dim}")))


def collector_for(name: str, criterion: Criterion, setting: Setting) -> tuple[object, Callable[[], Collector]]:
    """What identifies the statistics that a criterion needs, and how to make their collector.

    Criteria with the same identity share one. Raises InputError where `aggregate` means nothing to the criterion.
    """
    check(name, criterion, setting.aggregate)
    if isinstance(criterion, MapCriterion):
        kind = ReadMaps if setting.aggregate == "consumer" else Maps
        return (criterion.per_image, criterion.planar), lambda: kind(setting, criterion)
    if isinstance(criterion, GradientCriterion):
        return criterion.score, lambda: Gradients(setting, criterion.score)
    kinds = {GramCriterion: Grams, ContributionCriterion: Contributions, ScaleCriterion: Scales, DrawnCriterion: Drawn}
    if type(criterion) in kinds:
        return type(criterion), lambda: kinds[type(criterion)](setting)
    return criterion, lambda: Weights(setting)
