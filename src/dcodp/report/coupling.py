"""The coupling groups of each detector as its records hold them: which layers go together, how much each run kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import read_json
from dcodp.records import Record, run_folder
from dcodp.report.methods import budget_name, identity

MAX_RUNS = 6  # columns of kept channels


@dataclass(frozen=True)
class Group:
    """Channels that go together; `layers` is empty where the records name no layers."""

    name: str
    channels: int | None
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Coupling:
    """One detector. `kept`: "dcodp, 50 %" → {group: channels left}; `frozen`: layer → why it stays as it is."""

    model: str
    groups: tuple[Group, ...]
    frozen: Mapping[str, str]
    kept: Mapping[str, Mapping[str, int]]
    run_id: str  # of the record that names the groups

    def numbers(self, group: Group) -> list[int | None]:
        """Channels of a group, then how many each run kept; None where that is not known."""
        return [group.channels, *(kept.get(group.name) for kept in self.kept.values())]


def couplings(results: Path, records: Sequence[Record]) -> list[Coupling]:
    """One for each detector that was pruned, by name; the record that tells most of its groups is taken."""
    pruned: dict[str, list[Record]] = {}
    for record in records:
        if record.config and _told(record):
            pruned.setdefault(identity(record.config)["model"], []).append(record)
    return [_coupling(results, model, found) for model, found in sorted(pruned.items())]


def _told(record: Record) -> Mapping[str, Any]:
    told = record.provenance.get("pruning")
    return told if isinstance(told, Mapping) else {}


def _coupling(results: Path, model: str, records: Sequence[Record]) -> Coupling:
    plans = {record.run_id: _plan(run_folder(results, record.run_id).plan) for record in records}
    best = max(records, key=lambda record: (bool(_told(record).get("coupling")), bool(plans[record.run_id])))
    of = identity(best.config)["dataset"]
    kept: dict[str, Mapping[str, int]] = {}
    for record in records:
        who = identity(record.config)
        if who["dataset"] == of and (left := plans[record.run_id].get("groups")):
            name = f"{who['method']}, {budget_name(who['target'], who['ratio'])}"
            counts = {group: len(channels) for group, channels in left.items()}
            if kept.setdefault(name, counts) != counts:  # another seed or setting that keeps others
                kept[f"{name} ({record.run_id})"] = counts
    shown = dict(list(kept.items())[:MAX_RUNS])
    return Coupling(
        model, _groups(best, plans[best.run_id]), _told(best).get("layers_frozen") or {}, shown, best.run_id
    )


def _plan(path: Path) -> dict[str, Any]:
    """The plan beside a record; nothing where it is not there or not whole: the page can do without."""
    try:
        tree = read_json(path) if path.is_file() else {}
    except InputError:
        return {}
    return tree if isinstance(tree, dict) and isinstance(tree.get("groups"), dict) else {}


def _groups(record: Record, plan: Mapping[str, Any]) -> tuple[Group, ...]:
    """As the record names them, else as the plan does (without their layers)."""
    named = _told(record).get("coupling")
    if isinstance(named, Mapping):
        return tuple(
            Group(name, group.get("channels"), tuple(group.get("layers", ()))) for name, group in named.items()
        )
    channels = plan.get("channels") or {}
    return tuple(Group(name, channels.get(name), ()) for name in plan.get("groups", {}))
