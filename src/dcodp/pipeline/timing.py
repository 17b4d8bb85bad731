"""target=latency:0.5 in a run: nets are timed until one takes that share of the dense net's time; it is timed once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dcodp.config import Config
from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.graph import CouplingGraph
from dcodp.pipeline.cell import Cell, whole
from dcodp.pruning import PrunePlan
from dcodp.targets import is_timed, parse_target

if TYPE_CHECKING:
    from dcodp.export import Lost

TOLD = "timed"  # among the settings of a plan


def require_timeable(config: Config, detector: Detector) -> None:
    """Raises InputError, before anything is trained, for a net that does not take its images as one tensor."""
    if is_timed(config.target) and not isinstance(detector.example_inputs(config.image_size)[0], Tensor):
        raise InputError(
            f"target={config.target}: model={config.model.name} takes lists of images, which no runtime can be timed "
            "with; use target=flops:SHARE"
        )


def plan_in_time(
    cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor], lost: Lost | None, **how: Any
) -> PrunePlan:
    """The plan whose net took the time that is asked for when it was timed, or that which an earlier attempt found.
    `lost` and `how` are as for `met_on`."""
    from dcodp.export import Machine, met_on
    from dcodp.export.runtimes import default_threads

    config, detector = cell.config, cell.nets.now
    path = cell.step_folder(1) / "timed.json"
    plan = whole(path, PrunePlan.from_json)
    if plan is None:
        chosen = config.latency
        machine = Machine(chosen.runtime, chosen.threads or default_threads(), spin=False)
        example, (_, wanted) = detector.example_inputs(config.image_size)[0], parse_target(str(config.target))
        met = met_on(
            machine, detector.network, graph, scores, wanted, example, detector.outputs,
            None if chosen.table is None else Path(chosen.table), lost,
            round_to=None if config.round_to == 1 else config.round_to, **how,
        )  # fmt: skip
        plan = met.best.plan
        plan.settings[TOLD] = met.told(machine)
        plan.to_json(path)
    cell.record.notes = list(dict.fromkeys([*cell.record.notes, plan.settings[TOLD]]))
    return plan
