"""What stands under a table: on which images, after which training, over how many seeds, on which machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dcodp.report.labels import label
from dcodp.report.layouts import Column
from dcodp.report.query import Measurement


def footnotes(used: pd.DataFrame, rows: Sequence[Sequence[Measurement]], columns: Sequence[Column]) -> tuple[str, ...]:
    """used: the records' rows that the table draws on; rows: the table's cells."""
    cells = [(column, cell) for row in rows for column, cell in zip(columns, row, strict=True)]
    shown = {column.format for column, _ in cells}
    states = {cell.state for _, cell in cells}
    records = used.to_dict("records")
    notes = [
        f"Data: {_joined(data_name(row) for row in records)}." if records else "",
        f"Schedule: {schedules(row for row in records if row['stage'] != 'dense')}.",
        seeds_note([cell.n for _, cell in cells if cell.mean is not None]),
        "AP values × 100." if "ap" in shown else "",
        voc_note(records) if any(column.value.startswith("voc_") for column in columns) else "",
        "FLOPs count a multiply-accumulate as two." if "giga" in shown else "",
        latency_note(records) if "ms" in shown else "",
        unfinished_note(records),
        "missing: no record holds this cell yet." if "missing" in states else "",
        "—: does not apply, or the images hold no such objects." if "none" in states else "",
        "mixed: measured on different hardware, so not averaged." if "mixed" in states else "",
    ]
    return tuple(note for note in notes if note and note != "Schedule: .")


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))


def data_name(row: Mapping[Any, Any]) -> str:
    """ "VOC2007, 448-image subset (trained on a 126-image subset)", or "VOC2007 (4952 images)" for the whole split."""
    name, images = label("dataset", row["dataset"]), row["images"]
    setting = row["setting_of"]
    name = f"{name}, test split" if setting.get("dataset.test") else name
    use = "trained" if setting.get("train.epochs", 1) or setting.get("finetune.epochs") else "scored"
    trained = f" ({use} on a {row['train_images']:g}-image subset)" if row["train_subset"] else ""
    if row["subset"]:
        return f"{name}, {f'{images:g}-image ' if pd.notna(images) else ''}subset{trained}"
    return f"{name}{f' ({images:g} images)' if pd.notna(images) else ''}{trained}"


def schedules(rows: Iterable[Mapping[Any, Any]]) -> str:
    """ "100 + 20 epochs (training + fine-tuning), 640 px, from yolov7.pt, yolov8n.pt", one for each length and size."""
    starts: dict[str, list[str]] = {}
    for row in rows:
        setting = row["setting_of"]
        epochs = f"{setting.get('train.epochs', '?')} + {setting.get('finetune.epochs', '?')}"
        size = f", {setting['image_size']} px" if "image_size" in setting else ""
        starts.setdefault(f"{epochs} epochs (training + fine-tuning){size}", []).append(row["start"])
    return _joined(text + _started(from_) for text, from_ in starts.items())


def _started(names: Sequence[str]) -> str:
    """Nets that started from nothing are said to where others did not."""
    if not any(names):
        return ""
    return ", from " + ", ".join(sorted({name or "random weights" for name in names}))


def voc_note(records: Sequence[Mapping[Any, Any]]) -> str:
    rules = {"voc2007": "mean of 11 recall levels, as in VOC2007", "area": "area under the curve, as since VOC2010"}
    told = _joined(rules[name] for row in records if (name := row["voc_rule"]) in rules)
    return f"VOC mAP: at IoU 0.5, {told}." if told else ""


def seeds_note(counts: Sequence[int]) -> str:
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    if high == 1:
        return "One seed."
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"Mean ± sample standard deviation over {number} seeds."


def latency_note(records: Sequence[Mapping[Any, Any]]) -> str:
    """Names the hardware; says that rows cannot be compared where there is more than one."""
    measured = [row for row in records if pd.notna(row["latency_ms"])]
    hardware = list(dict.fromkeys(str(row["hardware"]) for row in measured))
    runs = {row["runs"] for row in measured if pd.notna(row["runs"])}
    if not hardware:
        return ""
    of = f"median of {_span(runs)} runs, " if runs else ""
    caution = "; rows on different hardware cannot be compared" if len(hardware) > 1 else ""
    return f"Latency: one image, {of}{'; '.join(hardware)}{caution}."


def _span(numbers: set[Any]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def unfinished_note(records: Sequence[Mapping[Any, Any]]) -> str:
    unfinished = dict.fromkeys(f"{row['run_id']} ({row['status']})" for row in records if row["status"] != "done")
    return f"Includes stages of runs that are not done: {', '.join(unfinished)}." if unfinished else ""
