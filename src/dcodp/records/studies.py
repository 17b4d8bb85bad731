"""Every record of a results folder: of the runs in it, and of a study, which holds many in one file.

results/STUDY/records.json      {"format": 1, "shared": {name: value}, "records": [record, …]}, one record a line
results/STUDY/metrics.jsonl     {"run_id": …, and what metrics.jsonl of that run has}, one line per epoch

A study is what a results folder leaves to be kept: the same records with the same numbers, and of the places of the
machine that made them the last names alone. What a detector's records have in common (SHARED: its coupling groups above
all) stands in the file once, and the records name it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

from dcodp.errors import InputError
from dcodp.files import read_json, write_atomically
from dcodp.records.folder import RunFolder, run_folder
from dcodp.records.metrics import read_metrics
from dcodp.records.record import Record, plain, read_record, record_of
from dcodp.records.running import is_alive

FORMAT = 1
PLACES = {  # sections of a configuration whose keys are places of a machine: of them a study keeps the last name
    "paths": ("data", "results", "own"),
    "model": ("weights", "backbone_weights", "variant"),
    "dataset": ("file", "train", "val", "test", "train_images", "val_images", "test_images"),
}
# places in `provenance` of mappings that a study holds once; a record has a name there, which `shared` explains
SHARED = (("libraries",), ("pruning", "coupling"), ("pruning", "layers_frozen"))


def load_records(results: Path) -> list[Record]:
    """Every run and every record of a study under `results`, sorted by id, with the status it really has: an unreadable
    record is "broken" (its `error` says why), a run whose process is gone is "interrupted". A run comes before the
    record of a study that bears its id. What SHARED names is one object in all runs that have the same there."""
    known: dict[str, Any] = {}
    runs = [_sharing(observe(folder), known) for folder in folders(Path(results) / "runs")]
    kept = {record.run_id: record for record in read_study(results)}
    return sorted({**kept, **{run.run_id: run for run in runs}}.values(), key=lambda record: record.run_id)


def _sharing(record: Record, known: dict[str, Any]) -> Record:
    """Thousands of records have their detectors' coupling groups in memory once."""
    for node, key in _places(record.provenance):
        node[key] = known.setdefault(json.dumps(node[key]), node[key])
    return record


def load_jobs(results: Path) -> list[Record]:
    """The records of the jobs that compute what runs share, in the same way."""
    return sorted((observe(folder) for folder in folders(Path(results) / "jobs")), key=lambda record: record.run_id)


def folders(root: Path) -> list[RunFolder]:
    """Those of results/runs or results/jobs, none where there is no such."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return [RunFolder(Path(e.path)) for e in entries if not e.name.startswith(".") and e.is_dir()]


def observe(folder: RunFolder) -> Record:
    """The record of a run, with the status it really has (see `load_records`)."""
    alive = is_alive(folder)
    if not folder.record.exists():
        lost = None if alive else "stopped before it wrote a record; run the cell again"
        return Record(folder.run_id, "running" if alive else "interrupted", error=lost)
    try:
        record = read_record(folder)
    except InputError as error:
        return Record(folder.run_id, "broken", error=str(error))
    if alive and record.status != "done":
        record.status = "running"
    elif record.status == "running":
        record.status, record.error = "interrupted", "its process is gone (killed?); run the cell again to continue"
    return record


def study_file(folder: Path) -> Path:
    return Path(folder) / "records.json"


def read_study(folder: Path) -> list[Record]:
    """The records of FOLDER/records.json, none where there is no such file. Raises InputError for any other content."""
    path = study_file(folder)
    if not path.is_file():
        return []
    try:
        tree = read_json(path)
    except InputError:
        raise InputError(f"{path} cannot be read, or is not whole JSON; bring it back from git") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or not isinstance(tree.get("records"), list):
        raise InputError(f"{path} is not a study's records, or of a later format; bring it back from git")
    try:
        return [record_of(_whole(record, tree.get("shared", {})), path) for record in tree["records"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {type(error).__name__} {error}; bring it back from git") from None


def _whole(record: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The record with what it names in `shared` in place."""
    for node, key in _places(record["provenance"]):
        if isinstance(node[key], str):
            node[key] = copy.deepcopy(shared[node[key]])
    return record


def _places(provenance: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where the SHARED values of a record stand: (mapping, key)."""
    for *parents, key in SHARED:
        node: Any = provenance
        for parent in parents:
            found = node.get(parent)
            node = found if isinstance(found, dict) else {}
        if key in node:
            yield node, key


def write_study(folder: Path, records: Sequence[Record]) -> Path:
    """Writes FOLDER/records.json; the same records give the same bytes. Raises InputError for what cannot be kept."""
    if unfit := [r.run_id for r in records if r.status in ("broken", "running")]:
        raise InputError(f"{', '.join(unfit)} cannot be read or are still running; a study is of runs that have ended")
    shared: dict[str, Any] = {}
    lines = [json.dumps(_compact(record, shared), allow_nan=False) for record in records]
    head = json.dumps({"format": FORMAT, "shared": shared})[:-1]
    write_atomically(study_file(folder), f'{head}, "records": [\n' + ",\n".join(lines) + "\n]}\n")
    return study_file(folder)


def _compact(record: Record, shared: dict[str, Any]) -> dict[str, Any]:
    """A record as JSON has it, SHARED values moved to `shared`; their names take their place."""
    lost: list[str] = []
    tree = plain(dataclasses.asdict(record), lost)
    tree["notes"] += [note for note in lost if note not in tree["notes"]]
    _forget_places(tree["config"])
    for node, key in _places(tree["provenance"]):
        if isinstance(node[key], dict):
            node[key] = _name(node[key], f"{_model(record)} {key}", shared)
    return tree


def _forget_places(config: dict[str, Any]) -> None:
    """`/somewhere/yolov8n.pt` and `../data` become yolov8n.pt and data; what lies below the project stays as it is."""
    for section, keys in PLACES.items():
        node = config.get(section)
        if not isinstance(node, dict):
            continue
        for key in keys:
            if isinstance(node.get(key), str) and _elsewhere(PurePath(node[key])):
                node[key] = PurePath(node[key]).name


def _elsewhere(path: PurePath) -> bool:
    return path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",)


def _model(record: Record) -> str:
    model = record.config.get("model")
    return str(model.get("name")) if isinstance(model, dict) else "?"


def _name(value: Any, name: str, shared: dict[str, Any]) -> str:
    """That of an equal value of `shared` (also in the order of its keys), to which it is added if there is none."""
    text, number = json.dumps(value), 1
    for known, other in shared.items():
        if json.dumps(other) == text:
            return known
        number += known.startswith(f"{name} ")
    shared[f"{name} {number}"] = value
    return f"{name} {number}"


def write_metrics(folder: Path, results: Path, run_ids: Iterable[str]) -> Path:
    """FOLDER/metrics.jsonl: the epochs of all runs, in their order."""
    rows = [{"run_id": run, **row} for run in run_ids for row in read_metrics(run_folder(results, run))]
    path = Path(folder) / "metrics.jsonl"
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path
