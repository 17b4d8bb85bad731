"""The table of README: what each method keeps of a detector at each budget after fine-tuning, and its limits."""

from pathlib import Path
from typing import Any

import pandas as pd

from dcodp.errors import InputError
from dcodp.records import Record, load_records
from dcodp.report.formats import markdown_rows
from dcodp.report.labels import label
from dcodp.report.methods import budget_name
from dcodp.report.query import measure, measurements, setting_notes

STUDIES = {  # mark → study
    "bccd fine-tuned": "bccd",
    "bccd recovery": "bccd_recovery",
    "bccd allocation": "bccd_allocation",
    "shapes recovery": "recovery_shapes",
    "bccd teacher": "teacher_bccd",
    "voc teacher": "teacher_voc",
    "voc recovery": "voc_recovery",
    "voc fine-tuned": "voc_resplit",
}


PARTS = ("importance", "allocation", "repair", "recovery", "steps")  # of a method


def blocks(root: Path) -> dict[str, str]:
    """mark → Markdown."""
    return {mark: finetuned(load_records(root / "results" / study)) for mark, study in STUDIES.items()}


def finetuned(records: list[Record]) -> str:
    """The rows, and below them what they rest on. Raises InputError where dense nets were not trained alike."""
    frame = measurements(records)
    frame["named"] = frame["run_id"].map({record.run_id: record.config.get("method", "") for record in records})
    tuned, dense = (
        _steps_by_budget(frame.loc[frame["stage"] == "finetuned"]),
        _plain(frame.loc[frame["stage"] == "dense"]),
    )
    if dense["base"].nunique() != 1:
        raise InputError("the dense nets of a study were not trained alike; keep its records apart")
    budgets = _budgets(tuned)
    whole = ["dense, 100 %", _cell(dense, None), *[""] * (len(budgets) - 1)]
    head = ["Method", *(f"{budget_name(*budget)}".replace("FLOPs to ", "FLOPs: ") for budget in budgets)]
    table = markdown_rows([head, whole, *_rows(tuned, dense, budgets)], right=range(1, len(head)))
    return f"{table}\n\n{limits(records, tuned)}"


def _plain(dense: pd.DataFrame) -> pd.DataFrame:
    """The dense nets that were trained as every method but Network Slimming asks for."""
    return dense.loc[dense["setting_of"].map(lambda setting: not setting["train.sparsity"])]


def _steps_by_budget(tuned: pd.DataFrame) -> pd.DataFrame:
    """A method whose number of steps follows from the budget is one row; only where a budget has several they tell."""
    same = ["named", *(part for part in PARTS if part != "steps"), "setting", "target", "ratio"]
    alone = tuned.groupby(same, dropna=False)["steps"].nunique().max() == 1
    return tuned.assign(steps=1) if alone else tuned


def _budgets(tuned: pd.DataFrame) -> list[tuple[str, float]]:
    """(target, ratio) of the columns, what leaves most FLOPs first."""
    groups = tuned.groupby(["target", "ratio"], dropna=False)["flops_removed"].mean()
    return [budget for budget, _ in sorted(groups.items(), key=lambda found: found[1])]


def _rows(tuned: pd.DataFrame, dense: pd.DataFrame, budgets: list[tuple[str, float]]) -> list[list[str]]:
    """One per method, the best first at the budget that most of them have; a setting of its own is named."""
    methods = [rows for _, rows in tuned.groupby(["named", *PARTS, "setting"], dropna=False)]
    firsts = [rows.iloc[0].to_dict() for rows in methods]
    both = zip(_part_notes(firsts), setting_notes(firsts), strict=True)
    notes = [(parts + settings).replace("] [", "; ") for parts, settings in both]  # in Markdown "[a] [b]" is a link
    common = max(reversed(budgets), key=lambda budget: sum(len(_at(rows, budget)) > 0 for rows in methods))
    found = [
        (_at(rows, common)["map50_95"].mean(), [rows.iloc[0]["named"] + note, *_cells(rows, dense, budgets)])
        for rows, note in zip(methods, notes, strict=True)
    ]
    return [row for _, row in sorted(found, key=lambda pair: (pair[0] != pair[0], -pair[0]))]  # NaN: not measured there


def _part_notes(rows: list[dict[str, Any]]) -> list[str]:
    """ " [allocation=cost (floor 0.1), steps=3]": what tells a row from others of the same method."""
    found = []
    for row in rows:
        same = [other for other in rows if other["named"] == row["named"]]
        parts = [f"{part}={row[part]}" for part in PARTS if len({other[part] for other in same}) > 1]
        found.append(f" [{', '.join(parts)}]" if parts else "")
    return found


def _cells(rows: pd.DataFrame, dense: pd.DataFrame, budgets: list[tuple[str, float]]) -> list[str]:
    return [_cell(_at(rows, budget), dense) for budget in budgets]


def _at(rows: pd.DataFrame, budget: tuple[str, float]) -> pd.DataFrame:
    target, ratio = budget
    same = rows["ratio"].isna() if target else rows["ratio"] == ratio
    return rows.loc[(rows["target"] == target) & same]


def _cell(rows: pd.DataFrame, dense: pd.DataFrame | None) -> str:
    """ "61.4 ± 0.2, n = 2 (98.8 %), 1.13 M": mAP50-95 × 100, of how many seeds, as a share of what the dense nets of
    the same seeds have, parameters."""
    found = measure(rows, "map50_95")
    if found.mean is None:
        return "–"
    spread = "" if found.spread is None else f" ± {100 * found.spread:.1f}, n = {rows['seed'].nunique()}"
    share = "" if dense is None else f" ({100 * found.mean / _mean_of(dense, rows):.1f} %)"
    return f"{100 * found.mean:.1f}{spread}{share}, {rows['parameters'].mean() / 1e6:.2f} M"


def _mean_of(dense: pd.DataFrame, rows: pd.DataFrame) -> float:
    """The dense nets' mAP50-95 at the seeds of these rows."""
    return measure(dense.loc[dense["seed"].isin(rows["seed"])], "map50_95").mean or 1.0


def limits(records: list[Record], tuned: pd.DataFrame) -> str:
    """What a cell says, and on what it stands."""
    first = records[0]
    config: dict[str, Any] = first.config
    images, count = first.provenance["images"], tuned["seed"].nunique()
    after = sorted({record.config["finetune"]["epochs"] for record in records})
    seeds = (
        "**one seed**, so small differences decide nothing"
        if count == 1
        else f"up to {count} seeds (± standard deviation where there are several)"
    )
    test = f", figures of the {images['test']} test images" if "test" in images else ""
    return (
        "mAP50-95 × 100 (its share of the dense net's), parameters. "
        f"{label('model', config['model']['name'])} on {label('dataset', config['dataset']['name'])}, "
        f"{images['train']} training and {images['val']} validation images{test}, {config['image_size']} px, "
        f"{config['train']['epochs']} epochs, then {' or '.join(map(str, after))} after pruning; {seeds}."
    )
