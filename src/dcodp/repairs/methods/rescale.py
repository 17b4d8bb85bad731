"""ThiNet's second half: after pruning, the consumers' weights on the kept channels are rescaled by least squares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dcodp.calibration.contributions import Contributions
from dcodp.calibration.statistic import reading
from dcodp.graph import CouplingGraph, Site
from dcodp.importance.thinet import thinet_scales_from_gram
from dcodp.pruning import PrunePlan
from dcodp.repairs.case import Case, Repair


@torch.no_grad()
def rescaled(pruned: nn.Module, plan: PrunePlan, graph: CouplingGraph, grams: Mapping[str, Tensor]) -> nn.Module:
    """Multiply the weights that read kept channels by the factors that bring back most of the dense outputs.

    `graph` is that of the dense network, `grams` are the contributions of each group's channels to its consumers'
    outputs (`Contributions.grams`). `pruned` is changed in place and returned; names and shapes stay. Each group
    is fitted on its own: the groups of a concatenation do not stand in for each other.
    """
    weights = dict(pruned.named_parameters())
    for group in graph.groups:
        kept = torch.tensor(plan.groups[group.name])
        for site in group.sites if len(kept) < group.channels else ():
            gram = grams.get(reading(group, site.tensor)) if site.role == "in" else None
            if gram is not None:
                _multiply(weights[site.tensor], site, kept, thinet_scales_from_gram(gram.cpu(), kept), plan)
    return pruned


def _multiply(weight: Tensor, site: Site, kept: Tensor, scales: Tensor, plan: PrunePlan) -> None:
    """weight: the pruned one; scales [kept channels]. Coordinates of other groups are left as they are."""
    coordinates = torch.tensor(plan.keep[site.tensor][site.dim])  # dense coordinates that are left, ascending
    factors = torch.ones(len(coordinates), dtype=torch.float64)
    places = torch.searchsorted(coordinates, torch.from_numpy(site.index)[kept])  # [kept channels, m]
    factors[places] = scales[:, None].expand_as(places)
    shape = [1] * weight.dim()
    shape[site.dim] = -1
    weight.mul_(factors.view(shape).to(weight))


def _mend(case: Case) -> list[str]:
    evidence, statistic = case.evidence, Contributions()
    grams = statistic.grams(evidence.sums[statistic], evidence.subject)
    rescaled(case.pruned, case.plan, evidence.subject.graph, grams)
    return []


REPAIR = Repair((Contributions(),), _mend)
