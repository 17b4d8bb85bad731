"""The record of a run: its keys, how it is written, read and observed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import read_json, write_atomically
from dcodp.records.folder import RunFolder
from dcodp.records.running import claim

STATUSES = ("running", "done", "failed", "interrupted")
STAGES = ("dense", "pruned", "repaired", "finetuned")
METRICS = ("map50", "map50_95", "ap75", "ap_small", "ap_medium", "ap_large", "parameters", "flops", "latency_ms")


@dataclass
class Record:
    """What one run was and what it measured; the same keys as record.json.

    `stages` are evaluation blocks in order of computation (`name`, `seconds`, METRICS, `per_class`, `images`,
    `subset`, `latency`, …; AP values from 0 to 1, None or -1 where the images hold no such objects). A method of
    several steps has stages of the same name; `block` gives the last one.
    """

    run_id: str
    status: str = "running"  # one of STATUSES; "broken" where the file could not be read
    config: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    error: str | None = None  # one line, of a failed run
    notes: list[str] = field(default_factory=list)

    def block(self, stage: str) -> dict[str, Any] | None:
        """The figures of the last stage of this name, None while there is none."""
        found = next((block for block in reversed(self.stages) if block["name"] == stage), None)
        return found and {key: value for key, value in found.items() if key != "name"}

    def add(self, stage: str, block: Mapping[str, Any], seconds: float | None = None) -> None:
        """One more stage is measured."""
        clock = {} if seconds is None else {"seconds": seconds}
        self.stages.append({"name": stage, **clock, **block})

    @property
    def dense(self) -> dict[str, Any] | None:
        return self.block("dense")

    @property
    def pruned(self) -> dict[str, Any] | None:
        return self.block("pruned")

    @property
    def repaired(self) -> dict[str, Any] | None:
        return self.block("repaired")

    @property
    def finetuned(self) -> dict[str, Any] | None:
        return self.block("finetuned")


def plain(value: Any, lost: list[str], name: str = "") -> Any:
    """JSON-able copy: arrays and tensors as lists, paths as text, NaN and infinity as None (named in `lost`)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, lost, f"{name}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, lost, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist(), lost, name)
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(f"{name} was {value}")
        return None
    return value


def write_record(folder: RunFolder, record: Record) -> None:
    """Values that are not finite are written as null (missing) and named in the record's notes.

    Beside the list of stages stands each stage's last block under its name, as in records of the first format.
    """
    lost: list[str] = []
    stages = [plain(stage, lost, stage["name"]) for stage in record.stages]
    tree = {**plain({**vars(record), "stages": []}, lost), "stages": stages}
    tree |= {stage: Record(record.run_id, stages=stages).block(stage) for stage in STAGES}
    tree["notes"] += [note for note in lost if note not in tree["notes"]]
    write_atomically(folder.record, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_record(folder: RunFolder) -> Record:
    """Raises InputError, naming the file and what is wrong, for anything but a whole record of this run."""
    record = record_of(read_json(folder.record), folder.record)
    if record.run_id != folder.run_id:
        raise InputError(f"{folder.record} belongs to run {record.run_id}; rename its folder to that")
    return record


def record_of(tree: Any, path: Path) -> Record:
    """The record that `tree`, the JSON content of `path`, is. Raises InputError where it is none."""
    return Record(**_record_fields(tree, path))


def _record_fields(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError(f"{path} does not hold a record; delete its folder and run the cell again")
    kinds = {"run_id": str, "status": str, "config": dict, "provenance": dict, "notes": list}
    known = {key: tree[key] for key in tree if key in Record.__dataclass_fields__}
    fields = {"notes": [], "error": None, "stages": stages_from(tree), **known}
    wrong = [key for key, kind in kinds.items() if not isinstance(fields.get(key), kind)]
    wrong += _wrong_stages(fields["stages"])
    if not wrong and fields["status"] not in STATUSES:
        wrong = ["status"]
    if wrong:
        raise InputError(f"{path}: {', '.join(wrong)} is not as a record has it; run the cell again")
    return fields


def stages_from(blocks: Mapping[str, Any]) -> list[Any]:
    """The stages of a record that has a key for each of them, as those of the first format: {"dense": {…}, …}."""
    blocks = {stage: blocks[stage] for stage in STAGES if blocks.get(stage) is not None}
    return [{"name": stage, **block} if isinstance(block, dict) else stage for stage, block in blocks.items()]


def _wrong_stages(stages: Any) -> list[str]:
    """The names of the stages that cannot be understood, or "stages"."""
    if not isinstance(stages, list):
        return ["stages"]
    return [str(s.get("name", "stages")) if isinstance(s, dict) else str(s) for s in stages if not _is_block(s)]


def _is_block(block: Any) -> bool:
    """An evaluation block: it has a name, metrics are numbers or None, per_class maps a class to its numbers."""
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        return False
    if not isinstance(block.get("per_class", {}), dict | None):
        return False
    numbers = all(isinstance(block.get(key), int | float | None) for key in METRICS)
    return numbers and all(isinstance(values, dict) for values in (block.get("per_class") or {}).values())


def is_done(folder: RunFolder) -> bool:
    """True where a whole record says so; the run is then skipped. Raises InputError for a broken record."""
    return folder.record.exists() and read_record(folder).status == "done"


@contextlib.contextmanager
def recording(folder: RunFolder, record: Record) -> Iterator[Record]:
    """Claims the run and keeps its record (`keeping`)."""
    with claim(folder), keeping(folder, record):
        yield record


@contextlib.contextmanager
def keeping(folder: RunFolder, record: Record) -> Iterator[Record]:
    """Writes the `record` of a claimed run at once as running, and at the end as done, failed or interrupted.

    Whatever ended the run is raised again, also where the record could not be written any more.
    """
    record.status, record.error = "running", None
    write_record(folder, record)
    try:
        yield record
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        record.status = "interrupted" if stopped else "failed"
        record.error = one_line(error)
        try:
            write_record(folder, record)
        except InputError as unwritten:
            error.add_note(str(unwritten))
        raise
    record.status = "done"
    write_record(folder, record)


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".removesuffix(": ")
