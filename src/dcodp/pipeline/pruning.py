"""From a net to a smaller one: scores, the plan that follows from them, slicing, and what is mended without labels."""

from __future__ import annotations

from torch import Tensor

from dcodp.config import Config
from dcodp.detectors.base import Detector
from dcodp.files.loading import load_strictly
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.graph import CouplingGraph
from dcodp.importance import criterion, group_scores
from dcodp.method import OF_THE_CRITERION
from dcodp.pipeline import calibrating
from dcodp.pipeline.cell import Cell, locked
from dcodp.pruning import PrunePlan, select
from dcodp.repairs import Case, Repair, repair_named
from dcodp.targets import parse_target


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
    with locked(folder):
        if not path.exists():
            required = criterion(chosen.name).required(chosen.aggregate)
            evidence = calibrating.gathered(cell, detector, graph, [*required, *repair_of(cell.config).requires], step)
            save_tensors(group_scores(chosen.name, evidence, chosen.aggregate), path)
        return load_tensors(path)[0]


def selected(cell: Cell, graph: CouplingGraph, scores: dict[str, Tensor], step: int) -> PrunePlan:
    """The plan of one step; always made anew, since it follows from the scores in no time."""
    config = cell.config
    ratio, target = budget(cell, graph, step)
    return select(
        graph, scores, ratio,
        round_to=config.round_to, interlayer=config.interlayer, allocation=config.allocation.name, target=target,
        comparable=criterion(config.importance.name).scale == "net",
    )  # fmt: skip


def budget(cell: Cell, graph: CouplingGraph, step: int) -> tuple[float, str | None]:
    """What a step of several removes of the net that it finds: equal shares that come to the ratio or target in all."""
    config = cell.config
    if config.steps == 1:
        return config.ratio, config.target
    if config.target is None:
        return 1 - (1 - config.ratio) ** (1 / config.steps), None
    kind, share = parse_target(config.target)
    counted = {"flops": CouplingGraph.flops, "parameters": CouplingGraph.parameter_count}[kind]
    dense, here = counted(cell.nets.dense.coupling_graph(config.image_size)), counted(graph)
    return config.ratio, f"{kind}:{min(1.0, share ** (step / config.steps) * dense / here)}"


def mended(cell: Cell, step: int) -> list[str]:
    """Repairs the net that pruning left, in place, or loads what an earlier attempt has repaired. Returns notes."""
    nets, chosen = cell.nets, repair_of(cell.config)
    path = cell.step_folder(step) / "repaired.safetensors"
    if path.exists():
        tensors, header = load_tensors(path)
        load_strictly(nets.now.network, tensors, path)
        return list(filter(None, header["notes"].split("\n")))
    evidence = calibrating.gathered(cell, nets.before, nets.graph, chosen.requires, step)
    forward = calibrating.forward(nets.before)
    case = Case(
        nets.before.network, nets.now.network, nets.latest, evidence, lambda: calibrating.batches(cell), forward
    )
    notes = chosen.mend(case)
    save_tensors(nets.now.network.state_dict(), path, {"notes": "\n".join(notes)})
    return notes
