"""The stages of a cell, as a list: each a name and what it does to the nets; its artefact spares doing it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from dcodp.config import Config
from dcodp.method import OF_THE_CRITERION
from dcodp.pipeline.cell import Cell
from dcodp.pipeline.fitting import dense_detector, finetuned
from dcodp.pipeline.measuring import dense_evaluation, draw, evaluated
from dcodp.pipeline.notes import say_if_trained_otherwise, say_what_was_pruned
from dcodp.pipeline.pruning import channel_scores, foresee, mended, selected
from dcodp.pruning import prune, save
from dcodp.records import timed, write_record


@dataclass(frozen=True)
class Stage:
    """`work` changes the cell's nets, on the record's clock of this name; with a `block` the net that it leaves is
    measured under that name."""

    name: str
    work: Callable[[Cell], None]
    block: str | None = None


def stages_of(config: Config) -> list[Stage]:
    """The dense net; then for each step: score, prune, repair and fine-tune, as far as the method asks for it."""
    stages = [Stage("dense", _dense)]
    for step in range(1, config.steps + 1):
        stages += [Stage("score", partial(_score, step=step)), Stage("prune", partial(_prune, step=step), "pruned")]
        if config.repair.name not in (OF_THE_CRITERION, "none") and config.control == "none":
            stages.append(Stage("repair", partial(_repair, step=step), "repaired"))
        if config.finetune.epochs:
            stages.append(Stage("finetune", partial(finetuned, step=step), "finetuned"))
    return stages


def run_stages(cell: Cell) -> None:
    """All stages in order; the record on disk grows with each of them."""
    stages = stages_of(cell.config)
    for number, stage in enumerate(stages):
        cell.tell(stage.name, number, len(stages))
        with timed(cell.record, stage.name):
            stage.work(cell)
        if stage.block is not None:
            with timed(cell.record, "evaluate"):
                _measure(cell, stage.block, stage.name)
    assert cell.nets.plan is not None
    _settle(cell)
    before = cell.nets.dense.pruned_by  # against the dense architecture, also where the weights were pruned already
    whole = cell.nets.plan if before is None else before.then(cell.nets.plan)
    save(cell.nets.now.network, whole, cell.folder.model)
    whole.to_json(cell.folder.plan)
    draw(cell, cell.nets.found)


def share(cell: Cell, configs: Sequence[Config], kind: str) -> None:
    """The first stages of cells, as far as the cells have them in common (`kind`: dense or scores)."""
    total = 1 + len(configs) * (kind == "scores")
    cell.tell("dense", 0, total)
    with timed(cell.record, "dense"):
        _dense(cell)
    for number, config in enumerate(configs if kind == "scores" else (), start=1):
        cell.config = config
        cell.tell("score", number, total)
        with timed(cell.record, "score"):
            _score(cell, step=1)
            foresee(cell, cell.nets.graph, cell.nets.scores)


@torch.no_grad()
def _settle(cell: Cell) -> None:
    """What a net keeps of its last pass (anchors of an image's size, say) is stored with it: that of the example image,
    however often the run was interrupted."""
    detector = cell.nets.now
    detector.network.eval()
    with detector.most_work():
        detector.network(*detector.example_inputs(cell.config.image_size))


def _measure(cell: Cell, block: str, clock: str) -> None:
    """The net's figures; of a method of several steps each step has its own."""
    number = sum(stage["name"] == block for stage in cell.record.stages) + 1
    name = block if cell.config.steps == 1 else f"{block}-{number}"
    figures, cell.nets.found[block] = evaluated(cell, cell.nets.now, name)
    cell.record.add(block, figures, cell.record.provenance["wall_seconds"][clock])
    write_record(cell.folder, cell.record)


def _dense(cell: Cell) -> None:
    cell.nets.dense = cell.nets.now = dense_detector(cell)
    figures, cell.nets.found["dense"] = dense_evaluation(cell, cell.nets.dense)
    cell.record.add("dense", figures)
    write_record(cell.folder, cell.record)


def _score(cell: Cell, step: int) -> None:
    nets = cell.nets
    nets.graph = nets.now.coupling_graph(cell.config.image_size)
    nets.scores = channel_scores(cell, nets.now, nets.graph, step)
    say_if_trained_otherwise(cell.record, cell.config)


def _prune(cell: Cell, step: int) -> None:
    nets, graph = cell.nets, cell.nets.graph
    nets.latest = selected(cell, graph, nets.scores, step)
    nets.plan = nets.latest if nets.plan is None else nets.plan.then(nets.latest)
    nets.latest.to_json(cell.step_folder(step) / "plan.json")
    nets.before, nets.now = nets.now, nets.now.with_network(prune(nets.now.network, nets.latest))
    if cell.config.repair.name == OF_THE_CRITERION:  # the second half of its authors' pruning
        mended(cell, step)
    say_what_was_pruned(cell.record, graph, nets.scores, nets.plan)


def _repair(cell: Cell, step: int) -> None:
    cell.record.notes += [note for note in mended(cell, step) if note not in cell.record.notes]
