"""One pruning in several steps: what each of them leaves, and how many epochs each has."""

from __future__ import annotations

import math
from collections.abc import Callable

from dcodp.graph import CouplingGraph
from dcodp.targets import COUNTED, parse_target

COSTS: dict[str, Callable[[CouplingGraph], float]] = {
    "flops": CouplingGraph.flops,
    "parameters": CouplingGraph.parameter_count,
}

# Of the cost, that one step leaves: two keep more of a tenth, and no more of a quarter (results/bccd_allocation).
LEAST = 0.2


def steps_to(target: str | None) -> int:
    """How many steps method=strong takes to a target; one to a ratio and to a latency, which each cut measures anew."""
    kind, share = ("", 1.0) if target is None else parse_target(target)
    return max(1, math.ceil(math.log(share) / math.log(LEAST) - 1e-9)) if kind in COSTS else 1


def epochs_of(epochs: int, step: int, steps: int) -> range:
    """Those of step 1 … `steps`, from 0: equal shares of all `epochs`, the last ones have what is left over."""
    return range(epochs * (step - 1) // steps, epochs * step // steps)


def ratio_of(ratio: float, steps: int) -> float:
    """The share of the channels that each step removes of what it finds."""
    return 1 - (1 - ratio) ** (1 / steps)


def target_of(target: str, step: int, steps: int, dense: CouplingGraph, here: CouplingGraph) -> str:
    """What a step makes of the net that it finds (`here`): each leaves the same share of what the one before left."""
    kind, share = parse_target(target, COUNTED)
    return f"{kind}:{min(1.0, share ** (step / steps) * COSTS[kind](dense) / COSTS[kind](here))}"
