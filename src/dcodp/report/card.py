"""What was done to a net and what it costs and finds now: card.json for programs, card.md for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dcodp.files import write_atomically


def write(folder: Path, card: dict[str, Any]) -> None:
    write_atomically(folder / "card.md", as_text(card))
    write_atomically(folder / "card.json", json.dumps(card, indent=1) + "\n")  # last: it says that all is there


def rows(card: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(what, dense, small, small as a share of dense), as far as it was measured."""
    dense, small = card["dense"], card["pruned"]
    found = []
    for key, name, form in FIGURES:
        one, other = dense.get(key), small.get(key)
        if one is not None and other is not None:
            found.append((name, form(one), form(other), f"{other / one:.1%}" if one else "–"))
    for runtime, times in card.get("latency", {}).items():
        one, other = times["dense"]["median_ms"], times["pruned"]["median_ms"]
        found.append((f"latency, {runtime}", f"{one:.1f} ms", f"{other:.1f} ms", f"{other / one:.1%}"))
    return found


FIGURES = (
    ("map50_95", "mAP50-95", "{:.3f}".format),
    ("map50", "mAP50", "{:.3f}".format),
    ("top1", "top-1 accuracy", "{:.3f}".format),
    ("top5", "top-5 accuracy", "{:.3f}".format),
    ("parameters", "parameters", lambda n: f"{n / 1e6:.2f} M"),
    ("flops", "FLOPs", lambda n: f"{n / 1e9:.2f} G"),
)


def as_text(card: dict[str, Any]) -> str:
    """Markdown: the table, how the net was made, per class, what was noted."""
    asked = card["asked"]
    lines = [f"# {card['name']}", "", f"Pruned from {card['source']} by dcodp {card['versions']['code']}: "
             f"{asked['target'] or 'ratio ' + str(asked['ratio'])}, method {asked['method']}, "
             f"{card['trained']['epochs']} epochs of fine-tuning, {card['image_size']} px.", ""]  # fmt: skip
    lines += ["| | dense | small | share |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {' | '.join(row)} |" for row in rows(card)]
    if card["dense"].get("images"):
        on = f"the {card['dense']['images']} images of the {card['dense']['split']} split"
        lines += ["", f"Accuracy on {on}, both nets by {card.get('measured_by', MEASURED_BY)}."]
    lines += _latency_note(card) + _per_class(card)
    if card["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in card["notes"])]
    return "\n".join([*lines, "", "## Going on", "", *card.get("going_on", GOING_ON), ""])


# What is said of nets of ultralytics; the card of another brings its own along.
MEASURED_BY = "ultralytics' validator"
GOING_ON = (
    "    from ultralytics import YOLO",
    "    from dcodp.yolo import PrunedTrainer",
    '    YOLO("small.pt").predict("image.jpg")',
    '    YOLO("small.pt").train(trainer=PrunedTrainer, data="data.yaml", epochs=50)  # stays pruned',
)


def _latency_note(card: dict[str, Any]) -> list[str]:
    if not card.get("latency"):
        return []
    first = next(iter(card["latency"].values()))
    threads, runs = first["dense"].get("threads"), first["dense"].get("n")
    return ["", f"Latency of one image: medians of {runs} runs, dense and small in turns, {threads} CPU threads, "
            f"{card['versions'].get('processor') or card['versions']['machine']}."]  # fmt: skip


def _per_class(card: dict[str, Any]) -> list[str]:
    dense, small = (card[block].get("per_class") for block in ("dense", "pruned"))
    if not dense or not small:
        return []
    lines = ["", "## mAP50-95 per class", "", "| class | dense | small |", "| --- | ---: | ---: |"]
    return lines + [f"| {name} | {_figure(ap)} | {_figure(small.get(name))} |" for name, ap in dense.items()]


def _figure(value: float | dict[str, float | None] | None) -> str:
    """The AP of a class; records have several of each."""
    value = value.get("map50_95") if isinstance(value, dict) else value
    return "–" if value is None else f"{value:.3f}"
