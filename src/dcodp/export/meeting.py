"""Pruning to a share of the measured latency: the table proposes, the whole net is timed, the share is corrected."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.export.formats.exportable import Outputs
from dcodp.export.latency import Latency
from dcodp.export.layer_costs import BLOCKS, LayerTable, kept_table
from dcodp.export.layer_sums import dense_counts
from dcodp.export.net_costs import RUNS, latency_cost, timed, whole_net
from dcodp.export.runtimes import Machine
from dcodp.graph import CouplingGraph
from dcodp.pruning import PrunePlan, prune, select
from dcodp.pruning.costs import Cost, flops_of

log = logging.getLogger(__name__)
TOLERANCE = 0.05  # of the share asked for
AIM = 0.5  # of the tolerance: whatever is timed again comes out otherwise
AGAIN = 2  # times that what came out near is timed again, each time opened anew
LEAST = 0.02  # the smallest share that the table is asked for


@dataclass(frozen=True)
class Try:
    """One net: the share that the table was asked for, and how long dense and small net took, side by side."""

    asked: float
    plan: PrunePlan
    dense: Latency
    small: Latency

    @property
    def share(self) -> float:
        return self.small.median_ms / self.dense.median_ms


@dataclass(frozen=True)
class Met:
    """The try nearest to the share wanted, and all of them in order."""

    wanted: float
    best: Try
    tries: tuple[Try, ...]
    of: int = 1  # nets that were as near, of which it loses least
    device: str = ""  # whose layer times were all there was: no net was timed

    def within(self, tolerance: float = TOLERANCE) -> bool:
        return abs(self.best.share / self.wanted - 1) <= tolerance

    def told(self, machine: Machine) -> str:
        """How near it came, as a note."""
        where = f"{machine.runtime}, {machine.threads} threads"
        if self.device:
            return (
                f"{where}: by the layer times of {self.device} alone the pruned net takes {self.best.share:.3f} of the "
                "dense one's time there; no net was timed"
            )
        told = f"{where}: the pruned net took {self.best.share:.3f} of the dense one's time when it was chosen"
        missed = f", the nearest of {len(self.tries)} tries to the {self.wanted:g} that was asked for"
        weighed = f"; of {self.of} nets that took as long, it loses least" if self.of > 1 else ""
        return (told if self.within() else told + missed) + weighed


Measure = Callable[[PrunePlan], tuple[Latency, Latency]]  # → dense, small
Lost = Callable[[PrunePlan], float]  # what a net loses when it is cut by this plan and repaired


def met_on(
    machine: Machine,
    network: nn.Module,
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    wanted: float,
    example: Tensor,
    outputs: Outputs,
    table: Path | None = None,
    lost: Lost | None = None,
    round_to: int | None = None,
    **selecting: Any,
) -> Met:
    """`met_latency` on this machine: its layers are timed (or read from `table`), then whole nets on `example`.

    With `lost`, the share is met in other ways too: by FLOPs, in the same blocks and (`round_to=None`) in any counts.
    Of the nets that are near enough, that which loses least is taken. What layers cost one by one says how the time is
    best shared out, but not exactly: fusions, copies and what kernels do with odd counts differ from net to net.

    Where `table` was measured on another processor, the net is for that one: its times alone decide.
    """
    if table is not None and table.exists() and not (there := LayerTable.read(table).machine).is_here:
        cost = latency_cost(network, graph, example, outputs, machine, table, widths=())
        return met_by_table(graph, scores, wanted, cost, there, round_to, **selecting)
    timed_layers = latency_cost(network, graph, example, outputs, machine, table or kept_table(machine))
    ways: list[tuple[Cost, int | None]] = [(timed_layers, round_to)]
    if lost is not None:
        counted = flops_of(graph)
        ways += [(counted, round_to), (counted, 1)] if round_to is None else [(counted, round_to)]
    measure = measuring(network, example, outputs, machine)
    return met_in_ways(graph, scores, wanted, ways, measure, lost, **selecting)


def met_by_table(
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    wanted: float,
    cost: Cost,
    there: Machine,
    round_to: int | None = None,
    **selecting: Any,
) -> Met:
    """The share that a table of `there`'s layer times promises, in the first of `BLOCKS` that allows it; untimed.

    Raises InputError where none allows it.
    """

    def told(plan: PrunePlan | None) -> Latency:
        ms = float(cost(dense_counts(graph, plan.groups if plan else None)[None])[0])
        return Latency(ms, ms, ms, 0, there.threads)

    def measure(plan: PrunePlan) -> tuple[Latency, Latency]:
        return told(None), told(plan)

    met = met_latency(graph, scores, wanted, cost, measure, round_to=round_to, **selecting)
    return replace(met, device=there.processor)


def met_in_ways(
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    wanted: float,
    ways: Sequence[tuple[Cost, int | None]],
    measure: Measure,
    lost: Lost | None,
    **further: Any,
) -> Met:
    """`met_latency` by each of `ways`, (cost, round_to); of the nets near enough that which loses least, else the
    nearest. The first way has to be possible; `further` are the other arguments of `met_latency`."""
    found: list[Met] = []
    for cost, blocks in ways:
        try:
            found.append(met_latency(graph, scores, wanted, cost, measure, round_to=blocks, **further))
        except InputError as refusal:
            if not found:
                raise
            log.info("one of %d ways to the time is not possible: %s", len(ways), refusal)
    return least_lost(found, lost)


def least_lost(found: Sequence[Met], lost: Lost | None = None) -> Met:
    """Of several ways to the same share: the net that loses least of those near enough, else the nearest."""
    wanted = found[0].wanted
    tries = tuple(one for met in found for one in met.tries)
    near: list[Try] = []
    for met in found:
        if met.within() and met.best.plan.groups not in [one.plan.groups for one in near]:
            near.append(met.best)
    if len(near) < 2 or lost is None:
        return Met(wanted, _nearest([met.best for met in found], wanted), tries)
    return Met(wanted, min(near, key=lambda one: lost(one.plan)), tries, len(near))


def met_latency(
    graph: CouplingGraph,
    scores: Mapping[str, Tensor],
    wanted: float,
    cost: Cost,
    measure: Measure,
    *,
    tolerance: float = TOLERANCE,
    tries: int = 6,
    round_to: int | None = None,
    **selecting: Any,
) -> Met:
    """Plans until the measured median is well within `tolerance` of `wanted`, a share of the dense net's latency.

    `measure(plan)` times both nets (`measuring` gives one that does). The first net is what the table says; then the
    share asked of it is corrected by what was measured, at most so many `tries`. `round_to`: kernels work on blocks of
    channels, and other counts cost as much as the next multiple; None is the first of `BLOCKS` that meets the share.
    `selecting`: the further arguments of `select`.
    The nearest try is returned also where none was near enough (`Met.within`). Raises InputError for a share out of
    range, and where not even the first net can be had.
    """
    if not 0 < wanted <= 1:
        raise InputError(f"latency:{wanted:g} is out of range; use 0 < share ≤ 1 of the dense net's latency")

    def chosen(share: float, blocks: int) -> PrunePlan:
        target, costs = f"latency:{share}", {"latency": cost}
        return select(graph, scores, target=target, costs=costs, round_to=blocks, **selecting)

    done: list[Try] = []
    refusal = None
    for blocks in (round_to,) if round_to else BLOCKS:
        try:
            done += _tried(wanted, lambda share, blocks=blocks: chosen(share, blocks), measure, tolerance, tries)
        except InputError as error:
            refusal = error
        met = Met(wanted, _nearest(done, wanted), tuple(done)) if done else None
        if met and met.within(tolerance):
            break
    if met is None:
        raise refusal or InputError("no net was tried; give tries ≥ 1")
    return met


def _tried(
    wanted: float, choose: Callable[[float], PrunePlan], measure: Measure, tolerance: float, tries: int
) -> list[Try]:
    """Until one is near by the median of several timings, channels come in steps, or what is left to correct lies
    beyond the floors."""

    def near(one: Try) -> bool:
        return abs(one.share / wanted - 1) <= AIM * tolerance

    done: list[Try] = []
    for _ in range(tries):
        asked = _next_share(done, wanted)
        try:
            plan = choose(asked)
        except InputError:
            if not done:
                raise
            break
        if plan.groups in [t.plan.groups for t in done]:
            break
        found = Try(asked, plan, *measure(plan))
        if near(found):  # which chance may have made it
            found = middle(found, *(Try(asked, plan, *measure(plan)) for _ in range(AGAIN)))
        done.append(found)
        if near(found):
            break
    return done


def _next_share(done: Sequence[Try], wanted: float) -> float:
    """What to ask of the table so that `wanted` is measured: the secant between the nearest tries on both sides of it,
    else in proportion. Never a secant through two on the same side, whose slope is often noise."""
    if not done:
        return wanted
    above = min((t for t in done if t.share >= wanted), key=lambda t: t.share, default=None)
    below = max((t for t in done if t.share < wanted), key=lambda t: t.share, default=None)
    if above and below and above.asked > below.asked:
        way = (wanted - below.share) / (above.share - below.share)
        return below.asked + way * (above.asked - below.asked)
    nearest = _nearest(done, wanted)
    return min(1.0, max(LEAST, nearest.asked * wanted / nearest.share))


def middle(*timed: Try) -> Try:
    """Of an odd number of timings of one net, that with the median share."""
    return sorted(timed, key=lambda one: one.share)[len(timed) // 2]


def _nearest(done: Sequence[Try], wanted: float) -> Try:
    return min(done, key=lambda t: abs(t.share - wanted))


def measuring(network: nn.Module, example: Tensor, outputs: Outputs, machine: Machine, runs: int = RUNS) -> Measure:
    """Times dense and small net in turns on `example`, as ONNX in the machine's runtime."""
    dense = whole_net(network, example, outputs, machine)

    def measure(plan: PrunePlan) -> tuple[Latency, Latency]:
        small = whole_net(prune(network, plan), example, outputs, machine)
        times = timed({"dense": dense, "small": small}, example, runs)
        return times["dense"], times["small"]

    return measure
