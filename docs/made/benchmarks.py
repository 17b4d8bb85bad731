"""What pages show of single measurements: the card of `dcodp prune`, architectures, cost, calibration."""

import json
import runpy
from pathlib import Path
from typing import Any

from dcodp.report.card import rows as card_rows
from dcodp.report.formats import markdown_rows
from dcodp.report.labels import label


def blocks(root: Path) -> dict[str, str]:
    """mark → Markdown."""
    measured = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (root / "results").glob("*.json")}
    way = next(iter(measured["whole_way"]["nets"].values()))
    return {
        "prune card": prune_card(json.loads((root / "results/prune/card.json").read_text(encoding="utf-8")), way),
        "architectures": architectures(measured["architectures"]),
        "architectures summary": architectures_summary(root, measured["architectures"]),
        "cost": cost(measured["importance_cost"]),
        "calibration": calibration(root, measured["calibration"]),
    }


def prune_card(card: dict[str, Any], way: dict[str, Any]) -> str:
    """What `dcodp prune` has measured of one detector, and on what; `way` is what came before and after it."""
    table = markdown_rows([["", "dense", "small", "share"], *map(list, card_rows(card))], right=range(1, 4))
    trained, first, dense = card["trained"], next(iter(card["latency"].values()))["dense"], card["dense"]
    told = [
        f"YOLOv8n, trained by ultralytics for {way['epochs']} epochs on BCCD (blood cells, {trained['images']} images)",
        f"at {card['image_size']} px, then {trained['epochs']} epochs of fine-tuning (`--epochs`), which is further",
        f"training too; one seed; accuracy on the {dense['images']} validation images. Latency of one image: medians",
        f"of {first['n']} runs, both nets in turns, {first['threads']} threads, {card['versions']['machine']}, beside",
        "other work.",
    ]
    return "\n".join([table, "", *told])


def architectures(measured: dict[str, Any]) -> str:
    head = ["architecture", "M parameters", "removed at 0.5", "error", "torch-pruning 1.6.1, ratio 0.5"]
    rows = [_architecture(name, row) for name, row in measured["architectures"].items()]
    return markdown_rows([head, *rows], right=range(1, 4))


def architectures_summary(root: Path, measured: dict[str, Any]) -> str:
    says = runpy.run_path(str(root / "benchmarks/documents/architectures.py"))
    return "\n".join(f"- {line}" for line in says["summary"](measured))


def _architecture(name: str, row: dict[str, Any]) -> list[str]:
    ours, peer = row["ours"], row["peer"]
    removed, error = ours["ratios"]["0.5"]["parameters_removed"], max(r["error"] for r in ours["ratios"].values())
    told = peer["problem"] or f"{100 * peer['removed']:.1f} % removed"
    return [name, f"{ours['parameters'] / 1e6:.1f}", f"{100 * removed:.1f} %", f"{error:.0e}", told]


def cost(models: dict[str, Any]) -> str:
    """How many times as long as forward passes over the same images."""
    rows = [
        [name, *(f"{m['criteria'][name]['seconds'] / m['forward']['seconds']:.1f}" for m in models.values())]
        for name in next(iter(models.values()))["criteria"]
    ]
    return markdown_rows([["criterion", *(label("model", name) for name in models)], *rows], right=range(1, 4))


def calibration(root: Path, measured: dict[str, Any]) -> str:
    says = runpy.run_path(str(root / "benchmarks/documents/calibration.py"))
    return "\n".join(line for line in says["document"](measured).splitlines() if line.startswith("|"))
