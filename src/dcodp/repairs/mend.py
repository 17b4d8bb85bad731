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
    network on the first batch. Raises InputError for an unknown name and for no batches.
    """
    chosen = repair_named(how)
    if not len(batches):
        raise InputError("a repair looks at calibration batches; give at least one")
    evidence = Evidence(network, graph or trace(network, batches[0]), chosen.requires)
    if evidence.needs_batches:
        gather(evidence, batches, forward(network))
    better = copy.deepcopy(pruned)
    chosen.mend(Case(network, better, plan, evidence, lambda: batches, forward))
    return better
