"""What benchmarks/finetune_against_ultralytics.py measured, in Markdown; `PARTS` is what its ladder takes back."""

import statistics as stats
from collections.abc import Sequence
from typing import Any

COMMAND = (
    "python benchmarks/finetune_against_ultralytics.py model.weights=… dataset=… image_size=… --epochs … --seeds …"
)
BRANCH, ALL = "class branch", "all of them"
PARTS = {  # what is taken back in the ladder → the paper's settings of it
    "learning rate": ["train.lr=1e-3", "train.fresh_lr=1"],
    "warm-up": ["train.warmup_epochs=3"],
    "averaged weights": ["train.ema_decay=0.9999", "train.ema_ramp=2000"],
    BRANCH: [],
}
PARTS[ALL] = [override for overrides in PARTS.values() for override in overrides]
CELL = ("model", "dataset", "train_images", "image_size", "batch", "epochs")  # what the two trainers share
Row = dict[str, Any]


def document(measured: dict[str, Any]) -> str:
    rows = measured["rows"]
    hardware = ", ".join(sorted({f"{row['hardware']}, {row['threads']} threads" for row in rows}))
    return f"""# Training from trained weights: `schedule=finetune` against ultralytics' own trainer

{hardware}. `{COMMAND}`

{table(rows)}

- mAP50-95 of the validation images, both nets by this project's evaluator, after the epoch that each trainer calls the
  best. Mean over seeds ± standard deviation; the difference is ours minus ultralytics', seed by seed.
- data (training/validation images). Same weights, images, boxes, epochs, image size, batch and threads.
- images/s of the updates alone, without validation; median epoch, mean over seeds. By the wall this depends on what
  else ran on the machine; by the CPU time of all threads it hardly does.
{ladder(rows)}"""


def key_of(row: Row, keys: tuple[str, ...] = (*CELL, "seed", "trainer", "taken_back")) -> tuple:
    return tuple("" if row[key] is None else row[key] for key in keys)


def by_cell(rows: list[Row]) -> list[list[Row]]:
    return [[row for row in rows if key_of(row, CELL) == cell] for cell in dict.fromkeys(key_of(r, CELL) for r in rows)]


def paired(rows: list[Row], first: tuple[str, str], second: tuple[str, str]) -> list[tuple[Row, Row]]:
    """The rows of one cell by seed, where both (trainer, taken back) are there."""
    by = {(*key_of(row, ("trainer", "taken_back")), row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    return [(by[*first, s], by[*second, s]) for s in seeds if (*first, s) in by and (*second, s) in by]


def compared(pairs: list[tuple[Row, Row]]) -> list[str]:
    """mAP50-95 of the first, of the second, and their difference, seed by seed."""
    values = [[row["map50_95"] for row in pair] for pair in pairs]
    first, second = zip(*values, strict=True)
    return [spread(first), spread(second), spread([b - a for a, b in values], "+.3f")]


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """ "0.558 ± 0.004" (standard deviation over seeds), or the number alone where there is one seed."""
    return format(stats.mean(values), form) + (f" ± {stats.stdev(values):.3f}" if len(values) > 1 else "")


def speeds(pairs: list[tuple[Row, Row]]) -> list[str]:
    kinds = ("images_per_second", "images_per_cpu_second")
    found = [[float(pair[k].get(kind) or 0.0) for pair in pairs] for kind in kinds for k in (0, 1)]
    return [f"{stats.mean(values):.1f}" if all(values) else "–" for values in found]


def described(pairs: list[tuple[Row, Row]]) -> list[str]:
    """The columns that say which cell this is."""
    row = pairs[0][0]
    shown = [
        f"{row['dataset']} ({row['train_images']}/{row['images']})",
        row["image_size"],
        row["batch"],
        row["epochs"],
    ]
    return [*map(str, shown), str(len(pairs))]


def table(rows: list[Row]) -> str:
    heads = ["data", "px", "batch", "epochs", "seeds", "ultralytics: mAP50-95", "ours", "difference"]
    heads += ["images/s", "ours", "images/CPU s", "ours"]
    found = [paired(cell, ("ultralytics", ""), ("ours", "")) for cell in by_cell(rows)]
    return markdown(heads, [[*described(pairs), *compared(pairs), *speeds(pairs)] for pairs in found if pairs])


def ladder(rows: list[Row]) -> str:
    """What each part brings: ours whole, and with the part taken back to the paper's; empty where nothing was."""
    heads = ["data", "px", "batch", "epochs", "seeds", "whole: mAP50-95", "without", "difference", "taken back"]
    found = [(part, paired(cell, ("ours", ""), ("ours", part))) for cell in by_cell(rows) for part in PARTS]
    lines = [[*described(pairs), *compared(pairs), part] for part, pairs in found if pairs]
    if not lines:
        return ""
    return f"""
## What each part brings

{markdown(heads, lines)}

- `schedule=finetune` with one part at a time taken back to the paper's settings.
{told(PARTS)}
- class branch: as wide as the stock net's for so many classes, and initialised anew.
"""


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---", *["---:"] * (len(heads) - 1)], *lines])


def told(parts: dict[str, list[str]]) -> str:
    """What is taken back of each part, a line for each."""
    alone = {part: overrides for part, overrides in parts.items() if part not in (BRANCH, ALL)}
    return "\n".join(f"- {part}: `{' '.join(overrides)}`" for part, overrides in alone.items())
