"""Who a row is: the method, the budget and the stages that a record's configuration tells of.

The one place that knows where in a configuration a method is written; no name of a criterion is known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dcodp.method import OF_THE_CRITERION, Method
from dcodp.records import Record
from dcodp.report.labels import declared, mark

# a method's fields and its budget, as a configuration without them means it
DEFAULTS: dict[str, Any] = {**Method.of({}).to_dict(), "target": "", "ratio": 0.0}
METHOD = tuple(DEFAULTS)
# where a configuration has them, by this and by earlier versions
PLACES = (
    *("importance.name", "importance.aggregate", "interlayer", "allocation", "scope"),
    *("repair", "compensate", "finetune.distill", "finetune.distill_features", "finetune.labels"),
    *("control", "steps", "target", "ratio"),
)
NO_METHOD = {field: type(value)() for field, value in DEFAULTS.items()}  # a dense net's
BUDGET = ("target", "ratio")  # how much is removed; the rest says how
UNNAMED = (*BUDGET, "steps")  # what a method's name does not say
# What a criterion may ask of the dense net's training (Network Slimming's penalty). Part of the method: its nets stand
# in one table with those of other criteria, beside a dense net of their own.
OF_THE_METHOD = ("train.sparsity",)


def part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """("importance.name") → the value there, None where there is none."""
    *parents, last = key.split(".")
    for parent in parents:
        config = part(config, parent)
    return config.get(last)


def method_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of METHOD; a target leaves no ratio (NaN)."""
    method = Method.of(config).to_dict()
    target = str(config.get("target") or "")
    ratio = math.nan if target else round(float(config.get("ratio") or 0.0), 6)
    return {**method, "importance": _criterion(config, method["importance"]), "target": target, "ratio": ratio}


def _criterion(config: Mapping[str, Any], name: str) -> str:
    """ "slimming", or "slimming (sparsity 0)" where the dense net was not trained as the configuration asks."""
    trained = trained_with(config)
    asked = {key: float(lookup(config, key) or 0.0) for key in OF_THE_METHOD}
    lacking = [f"{key.rpartition('.')[2]} {trained[key]:g}" for key in OF_THE_METHOD if trained[key] != asked[key]]
    return f"{name} ({', '.join(lacking)})" if lacking else name


def trained_with(config: Mapping[str, Any]) -> dict[str, float]:
    """OF_THE_METHOD as the dense net was trained with it; 0 where it was not trained."""
    trained = part(config, "train").get("epochs") != 0
    return {key: float(lookup(config, key) or 0.0) if trained else 0.0 for key in OF_THE_METHOD}


def method_name(method: Mapping[str, Any]) -> str:
    """{"importance": "l1", "aggregate": "max", "interlayer": False, …} → "l1, max over layers, uncoupled"; parts that
    labels.yaml has a name for go by it."""
    for name, parts in declared()["methods"].items():
        if all(method[field] == parts.get(field, DEFAULTS[field]) for field in METHOD if field not in UNNAMED):
            return ", ".join(filter(None, (name, mark("steps", method["steps"]))))
    marks = (mark(field, method[field]) for field in METHOD if field not in ("importance", *BUDGET))
    return ", ".join(filter(None, (method["importance"], *marks)))


def budget_name(target: str, ratio: float) -> str:
    """("", 0.5) → "50 %", the share of channels removed; ("flops:0.5", …) → "FLOPs to 50 %"."""
    if not target:
        return f"{100 * ratio:.4g} %"
    kind, _, share = target.partition(":")
    return f"{'FLOPs' if kind == 'flops' else kind} to {100 * float(share):.4g} %"


def identity(config: Mapping[str, Any], dense: bool = False) -> dict[str, Any]:
    """Who the row is. A dense net has no method: importance "", ratio 0, whatever its record went on to do."""
    model, dataset, importance = (part(config, key) for key in ("model", "dataset", "importance"))
    method = method_of(config)
    return {
        "model": str(model.get("name", "?")),
        "family": str(model.get("family", "?")),
        "dataset": str(dataset.get("name", "?")),
        **(NO_METHOD if dense else method),
        "seed": config.get("seed", 0),
        "seeds": (config.get("seed", 0), None if dense else importance.get("seed")),
        "method": "" if dense else method_name(method),
        "budget": "" if dense else budget_name(method["target"], method["ratio"]),
        "experiment": config.get("experiment_name") or "",
    }


def stages_of(record: Record) -> dict[str, Mapping[str, Any]]:
    """{name: evaluation block} of what was measured, in the order of the record; of several steps, the last."""
    return {str(stage["name"]): stage for stage in record.stages}


def stages_asked(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Those after the dense net that a run of this configuration is to have, and that are missing until it has.

    A net that is trained from random weights (control=scratch) has nothing to repair.
    """
    kept = str(config.get("control", "none")) == "none"
    repaired = ("repaired",) if kept and Method.of(config).repair not in (OF_THE_CRITERION, "none") else ()
    trained = () if part(config, "finetune").get("epochs") == 0 else ("finetuned",)
    return ("pruned", *repaired, *trained)
