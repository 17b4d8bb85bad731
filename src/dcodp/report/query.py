"""Records → rows: one per run and measured stage, and means over seeds. Pure functions, no files.

Rows that may be averaged share their *setting* (everything semantic but method and seed) and their *method*
(importance, allocation, repair, recovery, …, ratio or target); a dense net has no method and shares its
*base* (the setting less what comes after training).
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pandas as pd

from dcodp.config import late_defaults, not_semantic
from dcodp.errors import InputError
from dcodp.files import digest
from dcodp.records import Record
from dcodp.report.methods import METHOD, OF_THE_METHOD, PLACES, identity, part, stages_asked, stages_of, trained_with
from dcodp.targets import is_timed

AVERAGE_PRECISION = ("map50", "map50_95", "ap75", "ap_small", "ap_medium", "ap_large")
COUNTS = ("parameters", "flops")
AFTER_TRAINING = ("finetune.", "importance.", "latency.", "round_to")  # settings that no dense net depends on
FIELDS = (
    *("model", "family", "dataset", "stage", *METHOD, "method", "budget"),
    *("seed", "experiment", "subset", "status"),
)


@dataclass(frozen=True)
class Measurement:
    """Mean over seeds; `spread` is the sample standard deviation, None for one seed.

    `mean` is None where nothing was measured (`state` "missing"), where the value does not exist, for instance AP of
    a size that no object has ("none"), and where the values are not comparable ("mixed": latency on different
    hardware).
    """

    mean: float | None
    spread: float | None = None
    n: int = 0
    state: str = "measured"


MISSING = Measurement(None, state="missing")


Stages = Callable[[Record], Mapping[str, Mapping[str, Any]]]  # {name: evaluation block}


def measurements(records: Iterable[Record], stages: Stages = stages_of) -> pd.DataFrame:
    """One row per record and measured stage; blocks of unfinished runs count, their status says so."""
    rows = (row for record in records if record.config for row in _rows(record, stages(record)))
    return pd.DataFrame(list(_sharing(rows)), columns=list(*_rows(Record(""), {"dense": {}})))


def _rows(record: Record, stages: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What its stages have in common is looked up once."""
    common = {dense: {**identity(record.config, dense), **_settings(record, dense)} for dense in (True, False)}
    for stage, block in stages.items():
        yield _row(record, stage, block, common[stage == "dense"])


def _sharing(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, of which those of one setting have one explanation of it: thousands of them are large."""
    known: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        for key in ("setting", "base"):
            row[f"{key}_of"] = known.setdefault(row[key] or row["base"], row[f"{key}_of"])
        yield row


def _row(record: Record, stage: str, block: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run_id": record.run_id,
        "status": record.status,
        "stage": stage,
        "asked": stages_asked(record.config),
        **common,
        **_values(block, stages_of(record).get("dense") or {}),
        "channels_removed": 0.0
        if stage == "dense"
        else _number(part(record.provenance, "pruning").get("channels_removed")),
        **_data(record, block),
        **_hardware(block, record.provenance),
    }


def _settings(record: Record, dense: bool) -> dict[str, Any]:
    """`setting` and `base` as digests to group by, `setting_of` and `base_of` as flat {key: value} to explain them.

    What a criterion may ask of the dense net's training counts for the base alone: its nets share others' setting.
    """
    tree = late_defaults() | _flat(_semantic(record)) | dict.fromkeys(OF_THE_METHOD, 0.0)
    base = {key: value for key, value in tree.items() if not key.startswith(AFTER_TRAINING)}
    base |= trained_with(record.config)
    return {
        "setting": "" if dense else digest(tree),
        "base": digest(base),
        "setting_of": base if dense else tree,
        "base_of": base,
    }


def _semantic(record: Record) -> dict[str, Any]:
    """The configuration less method, seeds and what never changes a result; weights by name and fingerprint."""
    tree = copy.deepcopy(record.config)
    for key in (*not_semantic(), "seed", "importance.seed", *PLACES):
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = part(node, parent)
        node.pop(last, None)
    fingerprints = record.provenance.get("weights") or {}
    for key in ("weights", "backbone_weights"):
        if path := part(tree, "model").get(key):
            tree["model"][key] = " ".join(filter(None, (PurePath(path).name, fingerprints.get(key))))
    if not is_timed(record.config.get("target")):
        tree.pop("latency", None)
    if path := part(tree, "dataset").get("file"):
        tree["dataset"]["file"] = PurePath(path).name  # wherever it lay
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _values(block: Mapping[str, Any], dense: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a block, and the share of parameters and FLOPs removed from its dense net."""
    voc = block.get("voc_ap") or {}
    values: dict[str, Any] = {key: _number(block.get(key)) for key in (*AVERAGE_PRECISION, *COUNTS, "latency_ms")}
    for key in COUNTS:
        before, after = _number(dense.get(key)), values[key]
        values[f"{key}_removed"] = 1 - after / before if before > 0 else math.nan
    return values | {
        "voc_map": _number(voc.get("map")),
        "voc_rule": voc.get("rule") or "",
        "per_class": block.get("per_class") or {},
        "voc_per_class": voc.get("per_class") or {},
    }


def _number(value: Any) -> float:
    """NaN for whatever is no measurement; AP is -1 where the images hold no such objects."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else math.nan


def _data(record: Record, block: Mapping[str, Any]) -> dict[str, Any]:
    """On how many images the figure stands, and what the weights started from."""
    train = part(record.provenance, "images").get("train")
    published = part(record.config, "dataset").get("published_train")
    model = part(record.config, "model")
    files = {"": model.get("weights"), "backbone ": model.get("backbone_weights")}
    return {
        "images": block.get("images"),
        "subset": bool(block.get("subset")),
        "train_images": train,
        "train_subset": bool(train and published and train < published),
        "start": model.get("pretrained_label") or ", ".join(f"{k}{PurePath(v).name}" for k, v in files.items() if v),
    }


def _hardware(block: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    latency = block.get("latency") or {}
    device = str(latency.get("device") or provenance.get("device") or "unknown device")
    threads = latency.get("threads")
    return {
        "device": device,
        "hardware": device + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else ""),
        "runs": latency.get("runs"),
    }


def select(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """Rows whose fields have the given value, or one of the given values. Raises InputError for an unknown field."""
    keep = pd.Series(True, index=frame.index)
    for key, wanted in where.items():
        if key not in FIELDS:
            raise InputError(f"records have no field {key}; filter by {', '.join(FIELDS)}")
        values = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
        keep &= frame[key].isin(values)
    return frame.loc[keep]


class Selection:
    """`select` by the same fields again and again: the rows are looked through once for each set of fields, not once
    for each question."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self._places: dict[tuple[str, ...], dict[tuple, list[int]]] = {}  # fields → their values → rows

    def where(self, values: Mapping[str, Any]) -> pd.DataFrame:
        """Rows whose fields have the given value. Raises InputError for an unknown field."""
        fields = tuple(values)
        if fields not in self._places:
            select(self.frame.iloc[:0], values)  # for its refusal
            self._places[fields] = _places(self.frame, fields)
        return self.frame.iloc[self._places[fields].get(comparable(values.values()), [])]


def _places(frame: pd.DataFrame, fields: Sequence[str]) -> dict[tuple, list[int]]:
    found: dict[tuple, list[int]] = {}
    columns = [frame[field].tolist() for field in fields]
    for place, values in enumerate(zip(*columns, strict=True) if fields else [()] * len(frame)):
        found.setdefault(comparable(values), []).append(place)
    return found


def comparable(values: Iterable[Any]) -> tuple:
    """Not a number equals itself here."""
    return tuple("nan" if isinstance(value, float) and math.isnan(value) else value for value in values)


def measure(rows: pd.DataFrame, name: str) -> Measurement:
    """The value `name` over the rows of one cell: the mean over seeds of the mean within each seed.

    `name` is a column, or "per_class/CLASS/METRIC", or "voc_per_class/CLASS"; a class may have a slash in its name.
    """
    column, _, inside = name.partition("/")
    path = inside.rsplit("/", 1) if column == "per_class" else [inside] if inside else []
    seeds: dict[tuple, list[float]] = {}
    hardware = set()
    for found, seed, machine in zip(
        rows[column].tolist(), rows["seeds"].tolist(), rows["hardware"].tolist(), strict=True
    ):
        if math.isfinite(value := _inside(found, path)):
            seeds.setdefault(seed, []).append(value)
            hardware.add(machine)
    if not seeds:
        is_ap = name.startswith(("ap", "map", "voc", "per_class"))
        return Measurement(None, state="none") if len(rows) and is_ap else MISSING
    if name == "latency_ms" and len(hardware) > 1:
        return Measurement(None, n=len(seeds), state="mixed")
    means = [_mean(values) for values in seeds.values()]
    return Measurement(_mean(means), statistics.stdev(means) if len(means) > 1 else None, len(means))


def _mean(values: Sequence[float]) -> float:
    """Equal values give that value exactly: a dense net appears in the record of every ratio pruned from it."""
    return values[0] if len(set(values)) == 1 else statistics.fmean(values)


def _inside(value: Any, path: Sequence[str]) -> float:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return _number(value)


def differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the settings differ from each other, one text for each: "train.epochs=2, image_size=320"."""
    keys = sorted({key for setting in settings for key in setting})
    varying = [key for key in keys if len({repr(setting.get(key)) for setting in settings}) > 1]
    return [", ".join(f"{key}={setting.get(key)}" for key in varying) for setting in settings]


def setting_notes(rows: Sequence[Mapping[Any, Any]]) -> list[str]:
    """For each row, how its setting differs from the others of its data set and detector, and its dense net from those
    of the same method: " [image_size=320]" or ""."""
    notes = []
    for row in rows:
        same = [r for r in rows if (r["dataset"], r["model"]) == (row["dataset"], row["model"])]
        alike = [r for r in same if (r["method"], r["setting"]) == (row["method"], row["setting"])]
        told = (_difference(row, same, "setting"), _difference(row, alike, "base"))
        notes.append(f" [{text}]" if (text := ", ".join(filter(None, told))) else "")
    return notes


def _difference(row: Mapping[Any, Any], rows: Sequence[Mapping[Any, Any]], key: str) -> str:
    own = {r[key]: r[f"{key}_of"] for r in rows}
    return dict(zip(own, differences(list(own.values())), strict=True))[row[key]]


def class_names(frame: pd.DataFrame) -> list[str]:
    """Classes with any figure, in the order of the first record that names them."""
    return list(dict.fromkeys(name for classes in frame["per_class"].tolist() for name in classes))
