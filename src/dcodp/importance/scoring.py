"""Scores of coupling groups, from evidence: a criterion's function applied layer by layer, and the layers joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from dcodp.calibration import Evidence, Part, forward_of, gather
from dcodp.calibration.evidence import LOCATIONS
from dcodp.calibration.gather import Loss
from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, Group
from dcodp.importance.criteria import criterion
from dcodp.importance.criterion import Criterion, check
from dcodp.progress import track

Scores = dict[str, Tensor]  # group name → scores [channels] float64, on the CPU
LayerScores = Callable[[tuple[Part, ...]], Tensor]


def group_scores(name: str, evidence: Evidence, aggregate: str = "sum") -> Scores:
    """Scores by the criterion of this name; groups about which it says nothing are absent (and are left unpruned).

    Raises InputError where the criterion needs calibration batches and the evidence has seen none.
    """
    chosen = criterion(name)
    if not evidence.batches and any(evidence.needs_data(s) for s in chosen.required(aggregate)):
        raise InputError(f"importance={name} looks at {chosen.sees}; give calibration batches")
    layer_scores = _once_per_layer(chosen)
    groups = track(evidence.subject.graph.groups, f"ordering channels by {name}")
    scores = {group.name: _joined(chosen, evidence, group, aggregate, layer_scores) for group in groups}
    return {group: score for group, score in scores.items() if score is not None}


def _once_per_layer(chosen: Criterion) -> LayerScores:
    """The criterion's scores of a layer, computed once where several groups share it."""
    known: dict[str, Tensor] = {}

    def scores_of(parts: tuple[Part, ...]) -> Tensor:
        values = [value for part in parts for value in part.values]
        if parts[0].index is None:  # of this group alone
            return chosen.score(*values).double().cpu()
        if parts[0].layer not in known:
            known[parts[0].layer] = chosen.score(*values).double().cpu()
        return known[parts[0].layer]

    return scores_of


def _joined(
    chosen: Criterion, evidence: Evidence, group: Group, aggregate: str, layer_scores: LayerScores
) -> Tensor | None:
    """One score per channel of a group from the scores of its layers' coordinates."""
    said = [{part.layer: part for part in evidence.parts(s, group)} for s in chosen.required(aggregate)]
    layers = [layer for layer in said[0] if all(layer in parts for parts in said)]
    columns = []  # [channels, m] each
    for layer in layers:
        parts = tuple(of_statistic[layer] for of_statistic in said)
        scores = layer_scores(parts)
        columns.append(scores[:, None] if parts[0].index is None else scores[parts[0].index])
    if not columns:
        return None
    if aggregate == "consumer":
        return torch.stack([column.sum(1) for column in columns]).mean(0)
    table = torch.cat(columns, dim=1)
    return {"sum": table.sum, "mean": table.mean, "max": table.amax}[aggregate](1)


@overload
def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: str,
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Loss | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> Scores: ...


@overload
def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: Sequence[str],
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Loss | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> dict[str, Scores]: ...


def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: str | Sequence[str],
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Loss | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> Scores | dict[str, Scores]:
    """{group name: scores [channels] float64} by one criterion; for a list of them, {criterion: such a dictionary}.

    `batches` are the network's inputs, each a tensor, a tuple or a dict as for `trace`, or whatever `forward` takes;
    criteria on weights alone need none.
    Several criteria share one pass and score exactly as each would alone. Criteria on gradients need `loss` of a batch,
    a scalar or a dictionary of it ("total") and of its part about "boxes".
    Groups about which a criterion says nothing (no batch norm for slimming, no consumer for thinet) are absent.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    evidence = evidence_for(network, graph, chosen, aggregate, seed=seed, locations=locations)
    if evidence.needs_batches:
        if isinstance(batches, Tensor | Mapping):
            raise InputError("batches are a sequence of batches; put a single one into a list")
        gather(evidence, batches, forward or forward_of(network), loss)
    found = {name: group_scores(name, evidence, aggregate) for name in chosen}
    return found[names] if isinstance(names, str) else found


def evidence_for(
    network: nn.Module, graph: CouplingGraph, names: Sequence[str], aggregate: str = "sum", **options: Any
) -> Evidence:
    """Empty evidence for all that these criteria require. Raises InputError for an unknown criterion and an aggregate
    that means nothing to one of them."""
    for name in names:
        check(name, criterion(name), aggregate)
    required = (statistic for name in names for statistic in criterion(name).required(aggregate))
    return Evidence(network, graph, dict.fromkeys(required), **options)
