"""One pruning of a net that is open: look at images, score, choose, cut, repair. No labels are needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.calibration import Evidence, gather
from dcodp.config import Config
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.export import Machine, met_on
from dcodp.export.checking import predictions
from dcodp.graph import CouplingGraph
from dcodp.importance import criterion, group_scores
from dcodp.method import OF_THE_CRITERION
from dcodp.progress import track
from dcodp.pruning import PrunePlan, select
from dcodp.pruning.cost_aware import CostAware
from dcodp.repairs import repair_named
from dcodp.repairs.cutting import Cutting
from dcodp.repairs.sensitivity import WEIGHED_ON, sensitivity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shrunk:
    network: nn.Module
    plan: PrunePlan
    graph: CouplingGraph
    notes: tuple[str, ...]


class Shrinking:
    """What was learnt of a net, from which it can be cut to any size.

    `batches`: calibration images [B, 3, S, S] uint8; `method` composes importance, allocation and repair.
    """

    def __init__(self, detector: UltralyticsNet, batches: Sequence[Tensor], method: Config):
        self.detector, self.batches, self.method = detector, batches, method
        size = batches[0].shape[-1]
        self.graph = detector.coupling_graph(size)
        own = method.repair.name == OF_THE_CRITERION
        self.criterion = criterion(method.importance.name)
        self.repair = repair_named(self.criterion.repair if own else method.repair.name)
        self.evidence, self.scores = self._scored()
        self.cutting = Cutting(self.evidence, self.repair, lambda: self.batches, self._forward)
        self._measured: Any = None

    def _scored(self) -> tuple[Evidence, dict[str, Tensor]]:
        chosen = self.method.importance
        statistics = [*self.criterion.required(chosen.aggregate), *self.repair.requires]
        evidence = Evidence(
            self.detector.network, self.graph, dict.fromkeys(statistics), seed=chosen.seed, locations=chosen.locations
        )
        if evidence.needs_batches:
            counted = track(self.batches, "looking at the images", len(self.batches))
            gather(evidence, counted, self._forward(self.detector.network))
        return evidence, group_scores(chosen.name, evidence, chosen.aggregate)

    def to(self, ratio: float, target: str | None, round_to: int | None = 1) -> Shrunk:
        """The net without `ratio` of its channels, or with the share of cost that `target` names; repaired.

        `round_to` as in `dcodp.select`.
        """
        plan = select(self.graph, self.scores, ratio, round_to=round_to, target=target, **self.selecting())
        return self.repaired(plan)

    def to_latency(self, wanted: float, machine: Machine, table: Path | None, round_to: int | None = None) -> Shrunk:
        """The net that takes the share `wanted` of the dense net's time on this machine, as measured; repaired."""
        network, example = self.detector.network, self.detector.scaled(self.batches[0][:1])
        how = self.selecting()
        lost = self.lost_by() if isinstance(how["allocation"], CostAware) and self.detector.comparable else None
        met = met_on(
            machine, network, self.graph, self.scores, wanted, example, predictions, table, lost, round_to, **how
        )
        return self.repaired(met.best.plan, [met.told(machine)])

    def selecting(self) -> dict[str, Any]:
        """The further arguments of `select` by this method."""
        comparable = self.criterion.scale == "net"
        return {
            "interlayer": self.method.interlayer, "allocation": self._allocation(), "comparable": comparable
        }  # fmt: skip

    def repaired(self, plan: PrunePlan, told: Sequence[str] = ()) -> Shrunk:
        """The dense net cut as `plan` has it, and repaired; `told` is what notes begin with."""
        small, left = self.cutting(plan)
        notes = [*told, *left, *self.graph.notes]
        if unscored := plan.settings.get("unscored"):
            notes.append(f"{len(unscored)} groups have no score and stay whole: {', '.join(unscored)}")
        return Shrunk(small, plan, self.graph, tuple(notes))

    def lost_by(self) -> Callable[[PrunePlan], float]:
        """Plan → what the outputs lose on the last images when the net is cut by it and repaired."""
        return self.cutting.losing(self.detector.losses_on(self._last_images(WEIGHED_ON)))

    def _forward(self, network: nn.Module) -> Callable[[Any], Any]:
        same: Any = self.detector.with_network(network)
        return lambda images: same.network(same.scaled(images))

    def _last_images(self, count: int) -> Tensor:
        return torch.cat(list(self.batches))[-count:]

    def _allocation(self) -> CostAware | str:
        chosen = self.method.allocation
        if chosen.name != "cost":
            return chosen.name
        if not chosen.sensitivity or not self.detector.comparable:
            return CostAware(chosen.floor)
        if self._measured is None:
            self._measured = self._sensitivity(chosen.sensitivity)
        return CostAware(chosen.floor, measured=self._measured)

    def _sensitivity(self, count: int) -> Any:
        """What the outputs lose on the last images when single groups are pruned and repaired by themselves."""
        return sensitivity(self.cutting, self.scores, self.detector.losses_on(self._last_images(count)))
