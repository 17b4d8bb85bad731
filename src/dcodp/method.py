"""A pruning method as one value: which channels, how many from which group, and what is done about their loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dcodp.config import AllocationConfig, Config, to_dict

OF_THE_CRITERION = "own"  # the repair that a criterion's authors do


@dataclass(frozen=True)
class Method:
    """What conf/method composes; two nets that are averaged or compared in a table agree or differ in this.

    `recovery` says how a pruned net is trained on; how long is a matter of the schedule.
    """

    importance: str
    aggregate: str = "sum"
    interlayer: bool = True
    allocation: str = "uniform"
    repair: str = OF_THE_CRITERION
    recovery: str = "labels"
    steps: int = 1

    @classmethod
    def of(cls, config: Config | Mapping[str, Any]) -> Method:
        """Of a configuration, or of the one in a record, of whatever age."""
        tree = config if isinstance(config, Mapping) else to_dict(config)
        importance = tree.get("importance") or {}
        return cls(
            importance=str(importance.get("name", "")),
            aggregate=str(importance.get("aggregate", "sum")),
            interlayer=bool(tree.get("interlayer", True)),
            allocation=_allocation(tree),
            repair=str((tree.get("repair") or {}).get("name", OF_THE_CRITERION)),
            recovery=_recovery(tree.get("finetune") or {}, str(tree.get("control", "none"))),
            steps=int(tree.get("steps", 1)),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _allocation(tree: Mapping[str, Any]) -> str:
    """`scope` is what records of the first format call it."""
    if "allocation" in tree:
        return _with_details(tree["allocation"])
    return {"local": "uniform"}.get(str(tree.get("scope", "local")), str(tree.get("scope")))


def _with_details(allocation: Mapping[str, Any]) -> str:
    """ "cost", or "cost (floor 0.1)" where its settings are not the usual ones."""
    usual = asdict(AllocationConfig())
    named = str(allocation["name"])
    told = [f"{k} {v:g}" for k, v in allocation.items() if k != "name" and named == "cost" and v != usual.get(k)]
    return f"{named} ({', '.join(told)})" if told else named


def _recovery(finetune: Mapping[str, Any], control: str) -> str:
    """labels, distillation, or both; "scratch + …" from random weights."""
    parts = ["labels"] * bool(finetune.get("labels", True)) + _distillation(finetune)
    return " + ".join(["scratch"] * (control == "scratch") + parts)


def _distillation(finetune: Mapping[str, Any]) -> list[str]:
    """ "distillation", or "distillation (weight 4)" where its weights are not the usual ones."""
    weight, features = float(finetune.get("distill") or 0.0), float(finetune.get("distill_features", 1.0))
    told = [f"weight {weight:g}"] * (weight != 1) + [f"features {features:g}"] * (features != 1)
    return [f"distillation ({', '.join(told)})" if told else "distillation"] if weight else []
