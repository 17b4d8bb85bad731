"""From a net to a smaller one: scores, the plan that follows from them, slicing, and what is mended without labels."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from dcodp.config import Config, to_dict
from dcodp.detectors.base import Detector
from dcodp.files import digest, read_json, write_atomically
from dcodp.files.loading import load_strictly
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.graph import CouplingGraph
from dcodp.importance import criterion, group_scores
from dcodp.method import OF_THE_CRITERION
from dcodp.pipeline import calibrating, timing
from dcodp.pipeline.cell import Cell, once, whole
from dcodp.pruning import PrunePlan, select
from dcodp.pruning.cost_aware import CostAware
from dcodp.repairs import Repair, repair_named
from dcodp.repairs.cutting import Cutting, Lost
from dcodp.repairs.sensitivity import WEIGHED_ON, sensitivity
from dcodp.stepping import ratio_of, target_of
from dcodp.targets import is_timed


def repair_of(config: Config) -> Repair:
    """The repair that is asked for, or that of the criterion's authors."""
    own = config.repair.name == OF_THE_CRITERION
    return repair_named(criterion(config.importance.name).repair if own else config.repair.name)


def channel_scores(cell: Cell, detector: Detector, graph: CouplingGraph, step: int) -> dict[str, Tensor]:
    """Scores of all groups, computed once per net and criterion. What the repair wants to know is seen in the same
    pass."""
    chosen = cell.config.importance
    folder = cell.scores_folder(step)
    path = folder / "scores.safetensors"

    def compute() -> dict[str, Tensor]:
        required = criterion(chosen.name).required(chosen.aggregate)
        evidence = calibrating.gathered(cell, detector, graph, [*required, *repair_of(cell.config).requires], step)
        save_tensors(group_scores(chosen.name, evidence, chosen.aggregate), path)
        return load_tensors(path)[0]

    return once(folder, lambda: (stored := whole(path, load_tensors)) and stored[0], compute)


def selected(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor], step: int) -> PrunePlan:
    """The plan of one step; always made anew, since it follows from the scores in no time. What was timed is kept."""
    config = cell.config
    how: dict[str, Any] = {
        "interlayer": config.interlayer,
        "allocation": allocation(cell, graph, scores, step),
        "comparable": criterion(config.importance.name).scale == "net",
    }
    if is_timed(config.target):
        weighed = isinstance(how["allocation"], CostAware) and cell.nets.now.comparable
        lost = _cutting(cell, cell.nets.now, graph, step).losing(_losses(cell, WEIGHED_ON)) if weighed else None
        return timing.plan_in_time(cell, graph, scores, lost, **how)
    ratio, target = budget(cell, graph, step)
    return select(graph, scores, ratio, round_to=config.round_to, target=target, **how)


def allocation(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor], step: int) -> CostAware | str:
    """How many channels of which group go; what that takes is measured once per net, criterion and repair."""
    chosen = cell.config.allocation
    if chosen.name != "cost":
        return chosen.name
    if not chosen.sensitivity or not cell.nets.now.comparable:
        return CostAware(chosen.floor)
    name = digest([cell.config.repair.name, chosen.sensitivity, to_dict(cell.config.importance)])
    path = cell.scores_folder(step) / f"sensitivity-{name}.json"

    def measure() -> Any:
        cutting, lost = _cutting(cell, cell.nets.now, graph, step), _losses(cell, chosen.sensitivity)
        write_atomically(path, json.dumps(sensitivity(cutting, scores, lost)))
        return read_json(path)

    return CostAware(chosen.floor, measured=once(path.parent, lambda: whole(path, read_json), measure))


def foresee(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor]) -> None:
    """Compute what the first pruning and its repair will ask for beside the scores, as far as cells share it."""
    calibrating.gathered(cell, cell.nets.now, graph, repair_of(cell.config).requires, step=1)
    allocation(cell, graph, scores, step=1)


def _cutting(cell: Cell, detector: Detector, graph: CouplingGraph, step: int) -> Cutting:
    """How `detector`, the net that this step finds, is cut and repaired."""
    mending = repair_of(cell.config)
    evidence = calibrating.gathered(cell, detector, graph, mending.requires, step)
    return Cutting(evidence, mending, lambda: calibrating.batches(cell), calibrating.forward(detector))


def _losses(cell: Cell, count: int) -> Lost:
    """What a net's outputs lose on the last calibration images beside those of the net that this step finds."""
    images = torch.cat([batch.images for batch in calibrating.batches(cell)])[-count:].to(cell.device)
    return cell.nets.now.losses_on(images)


def budget(cell: Cell, graph: CouplingGraph, step: int) -> tuple[float, str | None]:
    """What a step of several removes of the net that it finds: equal shares that come to the ratio or target in all."""
    config = cell.config
    if config.steps == 1:
        return config.ratio, config.target
    if config.target is None:
        return ratio_of(config.ratio, config.steps), None
    dense = cell.nets.dense.coupling_graph(config.image_size)
    return config.ratio, target_of(config.target, step, config.steps, dense, graph)


def mended(cell: Cell, step: int) -> list[str]:
    """Repairs the net that pruning left, in place, or loads what an earlier attempt has repaired. Returns notes."""
    nets = cell.nets
    path = cell.step_folder(step) / "repaired.safetensors"
    if (stored := whole(path, load_tensors)) is not None:
        tensors, header = stored
        load_strictly(nets.now.network, tensors, path)
        return list(filter(None, header["notes"].split("\n")))
    notes = _cutting(cell, nets.before, nets.graph, step).mend(nets.now.network, nets.latest)
    save_tensors(nets.now.network.state_dict(), path, {"notes": "\n".join(notes)})
    return notes
