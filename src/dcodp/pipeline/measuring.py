"""The figures of a detector, the dense one's once for all cells that share it, and the pictures of what nets find."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dcodp.config import to_dict
from dcodp.data.splits import fingerprint
from dcodp.detectors.base import Detector
from dcodp.evaluation.measuring import Predictions, evaluate, load_predictions, predict, save_predictions
from dcodp.files import digest, read_json, write_atomically
from dcodp.pipeline.cell import Cell, once, whole
from dcodp.pipeline.memory import explained


def dense_evaluation(cell: Cell, detector: Detector) -> tuple[dict[str, Any], Predictions]:
    """The dense detector's figures, measured once for all cells that share it."""
    config = cell.config
    where = (
        "cpu" if cell.device.type == "cpu" else torch.cuda.get_device_name(cell.device)
    )  # which of them is no matter
    name = digest([to_dict(config.evaluation), where, config.threads, *_tested(cell)])
    folder = cell.dense_folder
    paths = folder / f"evaluation-{name}.json", folder / f"predictions-{name}.npz"
    return once(folder, lambda: _stored(*paths), lambda: _evaluation(cell, detector, *paths))


def _tested(cell: Cell) -> list[str]:
    """What tells measurements of the same net apart: nothing where it is tested on val, of which its folder tells."""
    return [fingerprint(cell.test_set)] if "test" in cell.sets else []


def evaluated(cell: Cell, detector: Detector, stage: str) -> tuple[dict[str, Any], Predictions]:
    """The figures of one stage of this cell."""
    paths = cell.folder.path / f"evaluation-{stage}.json", cell.folder.path / f"predictions-{stage}.npz"
    return _stored(*paths) or _evaluation(cell, detector, *paths)


def _stored(block_path: Path, predictions_path: Path) -> tuple[dict[str, Any], Predictions] | None:
    block, predictions = whole(block_path, read_json), whole(predictions_path, load_predictions)
    return None if block is None or predictions is None else (block, predictions)


def _evaluation(
    cell: Cell, detector: Detector, block_path: Path, predictions_path: Path
) -> tuple[dict[str, Any], Predictions]:
    config = cell.config
    with explained("evaluation.batch", config.evaluation.batch, cell.device, _prediction(cell, detector)):
        found = predict(detector, cell.test_set, config.image_size, config.evaluation)
    save_predictions(predictions_path, found)
    block = evaluate(detector, cell.test_set, config.image_size, config.evaluation, predictions=found)
    write_atomically(block_path, json.dumps(block))
    return block, found


def _prediction(cell: Cell, detector: Detector) -> Callable[[int], object]:
    """batch size → the first batch of that size predicted."""
    few = dataclasses.replace(cell.test_set, images=cell.test_set.images[: cell.config.evaluation.batch])
    settings = cell.config.evaluation
    return lambda size: predict(detector, few, cell.config.image_size, dataclasses.replace(settings, batch=size))


def draw(cell: Cell, found: dict[str, Predictions]) -> None:
    """The first images tested on, with what each net finds in them, side by side."""
    from dcodp.report.pictures import Drawn, draw_pictures

    images = cell.test_set.images[: cell.config.evaluation.pictures]
    if images:
        drawn = {stage: [Drawn(*predictions[i.id]) for i in images] for stage, predictions in found.items()}
        paths, sizes = [i.path for i in images], [(i.width, i.height) for i in images]
        draw_pictures(cell.folder.pictures, paths, drawn, cell.test_set.classes, sizes=sizes)
