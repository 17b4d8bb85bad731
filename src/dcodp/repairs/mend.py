"""The public way to repair a pruned net: any network, any calibration batches, no labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from dcodp.calibration import Evidence, forward_of, gather
from dcodp.errors import InputError
from dcodp.graph import CouplingGraph, trace
from dcodp.pruning import PrunePlan
from dcodp.repairs.case import Case
from dcodp.repairs.methods import repair_named


def repair(
    network: nn.Module,
    pruned: nn.Module,
    plan: PrunePlan,
    batches: Sequence[Any],
    how: str = "least_squares",
    *,
    graph: CouplingGraph | None = None,
    forward: Callable[[nn.Module], Callable[[Any], Any]] = forward_of,
) -> nn.Module:
    """A new network: `pruned`, made by `plan` from the dense `network`, repaired in the way `how` (one of `names()`).

    `batches` are inputs as for `trace`, several times iterable; labels are not needed. `graph` spares tracing the dense
    network on the first batch; it has to be given where the plan was made from a trace of other outputs than all.
    Raises InputError for an unknown name, for no batches, and for a graph without the groups that the plan prunes.
    """
    chosen = repair_named(how)
    if not len(batches):
        raise InputError("a repair looks at calibration batches; give at least one")
    graph = graph or trace(network, batches[0])
    _require_groups(graph, plan)
    evidence = Evidence(network, graph, chosen.requires)
    if evidence.needs_batches:
        gather(evidence, batches, forward(network))
    better = copy.deepcopy(pruned)
    chosen.mend(Case(network, better, plan, evidence, lambda: batches, forward))
    return better


def _require_groups(graph: CouplingGraph, plan: PrunePlan) -> None:
    """Consumers are found through the graph: those of a group that it lacks would be left as they are in silence."""
    known = {group.name: group.channels for group in graph.groups}
    cut = [name for name, kept in plan.groups.items() if len(kept) < plan.channels[name]]
    missing = [name for name in cut if known.get(name) != plan.channels[name]]
    if missing:
        raise InputError(
            f"the plan prunes {len(missing)} groups that the trace does not have so, as {missing[0]}; give graph=…, "
            "that which the plan was made from"
        )
