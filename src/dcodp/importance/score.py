"""Group scores: a criterion applied to every layer of every coupling group, in one streamed pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group, Site
from dcodp.importance.criteria import Criterion, MapCriterion, WeightCriterion, criterion, filters
from dcodp.importance.observe import LayerMaps


class MapSums:
    """Running sums of a map criterion over images, layer by layer; small enough to be stored after every batch."""

    def __init__(self, of: MapCriterion, sums: dict[str, Tensor] | None = None, batches: int = 0):
        self.criterion, self.sums, self.batches = of, dict(sums or {}), batches

    def add(self, layer: str, maps: Tensor) -> None:
        """maps [B, C, H, W]: adds the images' scores and, in a last entry, their number."""
        scores = self.criterion.per_image(maps).double()
        entry = torch.cat([scores.sum(0), scores.new_tensor([float(len(scores))])]).cpu()
        self.sums[layer] = self.sums[layer] + entry if layer in self.sums else entry

    def means(self) -> dict[str, Tensor]:
        """layer → mean score [C] over all images (and applications) of the layer."""
        return {layer: entry[:-1] / entry[-1] for layer, entry in self.sums.items()}


def observe(
    network: nn.Module,
    graph: CouplingGraph,
    batches: Iterable[Any],
    sums: MapSums,
    forward: Callable[[Any], Any],
    after_batch: Callable[[MapSums], None] | None = None,
) -> MapSums:
    """Run `forward` over calibration batches and add up the scores of all layers in groups, as the network runs.

    The network is put in evaluation mode meanwhile. Batches that `sums` already holds are skipped, so that an
    interrupted pass can go on.
    """
    layers = [layer for layer in dict.fromkeys(x for g in graph.groups for x in g.layers)]
    was_training = network.training
    network.eval()
    try:
        for number, batch in enumerate(batches):
            if number < sums.batches:
                continue
            mode = LayerMaps(network, layers, sums.add)
            with torch.no_grad():
                with mode:
                    forward(batch)
                mode.flush()
            sums.batches = number + 1
            if after_batch is not None:
                after_batch(sums)
    finally:
        network.train(was_training)
    return sums


def score(
    network: nn.Module,
    graph: CouplingGraph,
    name: str,
    batches: Iterable[tuple[Any, ...]] = (),
    *,
    aggregate: str = "sum",
    seed: int = 0,
) -> dict[str, Tensor]:
    """{group name: scores [channels] float64}: criterion `name` on all coupling groups.

    `batches` are input tuples of the network, needed by criteria that look at feature maps. `aggregate` joins the
    scores of a group's layers: sum (the default), mean or max.
    """
    chosen = criterion(name)
    sums = None
    if isinstance(chosen, MapCriterion):
        sums = observe(network, graph, batches, MapSums(chosen), lambda inputs: network(*inputs))
    return group_scores(network, graph, chosen, sums, aggregate=aggregate, seed=seed)


def group_scores(
    network: nn.Module,
    graph: CouplingGraph,
    chosen: Criterion,
    sums: MapSums | None = None,
    *,
    aggregate: str = "sum",
    seed: int = 0,
) -> dict[str, Tensor]:
    """From layer scores to group scores; groups for which the criterion says nothing are absent."""
    per_layer = _layer_scores(network, graph, chosen, sums, seed)
    joined = {g.name: _join(g, _scored_sites(g, chosen), per_layer, aggregate) for g in graph.groups}
    return {name: scores for name, scores in joined.items() if scores is not None}


def _scored_sites(group: Group, chosen: Criterion) -> list[Site]:
    if isinstance(chosen, MapCriterion | WeightCriterion):
        return [s for s in group.sites if s.role == "out"]
    return [s for s in group.sites if s.role == "vector" and s.tensor.endswith("weight")]


def _layer_scores(
    network: nn.Module, graph: CouplingGraph, chosen: Criterion, sums: MapSums | None, seed: int
) -> dict[str, Tensor]:
    modules = dict(network.named_modules())
    names = dict.fromkeys(s.tensor.rpartition(".")[0] for g in graph.groups for s in _scored_sites(g, chosen))
    if isinstance(chosen, MapCriterion):
        if sums is None or not sums.batches:
            raise InputError("this criterion looks at feature maps; give calibration batches")
        return sums.means()
    if isinstance(chosen, WeightCriterion):
        generator = torch.Generator().manual_seed(seed)
        return {name: chosen.score(filters(modules[name]), generator).double() for name in names}
    norms = {n: modules[n] for n in names if isinstance(modules[n], nn.modules.batchnorm._BatchNorm)}
    return {n: chosen.score(m.weight.detach().float().cpu()).double() for n, m in norms.items()}  # type: ignore[arg-type]


def _join(group: Group, sites: list[Site], per_layer: dict[str, Tensor], aggregate: str) -> Tensor | None:
    parts = [
        per_layer[name][torch.from_numpy(site.index)]  # [channels, m]
        for site in sites
        if (name := site.tensor.rpartition(".")[0]) in per_layer
    ]
    if not parts:
        return None
    table = torch.from_numpy(np.concatenate([p.numpy() for p in parts], axis=1))  # [channels, all sites]
    return {"sum": table.sum(1), "mean": table.mean(1), "max": table.amax(1)}[aggregate]
