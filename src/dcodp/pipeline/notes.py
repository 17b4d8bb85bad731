"""What a record says of its own making: provenance, what was pruned, and what a reader should know of the scores."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcodp.config import Config, to_dict
from dcodp.data.splits import fingerprint
from dcodp.data.types import DetectionSet
from dcodp.errors import InputError
from dcodp.files import file_digest
from dcodp.graph import CouplingGraph
from dcodp.importance import criterion
from dcodp.pruning import PrunePlan
from dcodp.records import Record, RunFolder, collect_provenance, read_record


def resumed_record(folder: RunFolder, config: Config) -> Record:
    """A fresh record, with the wall times of an interrupted attempt carried on."""
    record = Record(folder.run_id, config=to_dict(config))
    with contextlib.suppress(InputError):
        if folder.record.exists():
            before = read_record(folder)
            record.provenance = {"wall_seconds": before.provenance.get("wall_seconds", {})}
    return record


def provenance(config: Config, devices: list[torch.device], sets: list[DetectionSet], record: Record) -> dict[str, Any]:
    """What decides the numbers beside the configuration: code, libraries, hardware, data, weights."""
    name = torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else None
    found = collect_provenance(config.seed, name, {s.split: fingerprint(s) for s in sets})
    found["devices"] = len(devices)
    files = {key: getattr(config.model, key) for key in ("weights", "backbone_weights")}
    found["weights"] = {key: file_digest(Path(path)) for key, path in files.items() if path is not None}
    found["threads"] = torch.get_num_threads()
    found["images"] = {s.split: len(s) for s in sets}
    found["wall_seconds"] = record.provenance.get("wall_seconds", {})
    return found


def say_what_was_pruned(record: Record, graph: CouplingGraph, scores: dict[str, Tensor], plan: PrunePlan) -> None:
    """Ratios that were reached and what was left alone go into the record."""
    record.provenance["pruning"] = {
        "groups": len(graph.groups),
        "channels": sum(g.channels for g in graph.groups),
        "channels_removed": round(plan.channel_ratio, 4),
        "layers_frozen": {f.layer: f.reason for f in graph.frozen},
        "coupling": {g.name: {"channels": g.channels, "layers": list(g.layers)} for g in graph.groups},
    }
    name = record.config["importance"]["name"]
    unscored = [g.name for g in graph.groups if g.name not in scores]
    if unscored:
        why = f"{len(unscored)} groups have no score by {name} and were left unpruned"
        record.notes.append(f"{why}: {', '.join(unscored)}")
    alike = [group for group, values in scores.items() if len(values) > 1 and bool((values == values[0]).all())]
    if alike:
        what = f"{name} scores all channels alike in {len(alike)} of {len(graph.groups)} groups"
        record.notes.append(f"{what}, so the later ones went: {', '.join(alike)}")


def say_if_trained_otherwise(record: Record, config: Config) -> None:
    """A criterion may score nets that were trained in its own way only."""
    name, wanted = config.importance.name, criterion(config.importance.name).trained_with
    if wanted is not None and not (config.train.epochs and getattr(config.train, wanted)):
        note = f"{name} scores a net that was not trained with its {wanted} penalty (train.epochs, train.{wanted})"
        record.notes = list(dict.fromkeys([*record.notes, note]))
