"""What a figure draws: one series for each detector, method and setting, with its dense net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dcodp.report.claims import paper_method
from dcodp.report.labels import label
from dcodp.report.layouts import FOUND, FigureLayout
from dcodp.report.methods import METHOD, method_name
from dcodp.report.query import select, setting_notes

KEYS = ["dataset", "model", "method", "setting", "base"]  # what a series has in common


@dataclass(frozen=True)
class Series:
    """One detector, method and setting: its dense rows, and its fine-tuned rows at every ratio."""

    name: str
    dense: pd.DataFrame
    later: pd.DataFrame

    def at(self, ratio: float) -> pd.DataFrame:
        """Ratio 0 is the dense net."""
        return self.later.loc[self.later["ratio"] == ratio] if ratio else self.dense

    @property
    def ratios(self) -> list[float]:
        return [0.0, *sorted({float(r) for r in self.later["ratio"].dropna()} - {0.0})]

    @property
    def budgets(self) -> list[tuple[str, pd.DataFrame]]:
        """(budget, rows) of every pruned net, also those with a FLOPs or parameter target instead of a ratio."""
        return [(str(group.iloc[0]["budget"]), group) for _, group in self.later.groupby("budget", sort=True)]


def series_of(layout: FigureLayout, frame: pd.DataFrame) -> list[Series]:
    """Declared detectors first, then the others if allowed; methods and settings are named where they differ."""
    dense = frame.loc[frame["stage"] == "dense"]
    models, later = _asked(layout, frame)
    later = later.sort_values([*METHOD], kind="stable")
    groups = [group for _, group in later.groupby(KEYS, sort=False)]
    first = method_name(paper_method())
    groups.sort(key=lambda g: (models.index(g.iloc[0]["model"]), g.iloc[0]["method"] != first))
    firsts = [group.to_dict("records")[0] for group in groups]
    return [
        Series(name, dense.loc[(dense["base"] == first["base"]) & (dense["model"] == first["model"])], group)
        for name, first, group in zip(_names(firsts), firsts, groups, strict=True)
    ]


def number_of_series(layout: FigureLayout, frame: pd.DataFrame) -> int:
    """How many `series_of` gives, without making them."""
    return int(_asked(layout, frame)[1].groupby(KEYS).ngroups)


def _asked(layout: FigureLayout, frame: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The detectors in their order, and the rows of their pruned nets."""
    later = select(frame.loc[frame["stage"] == layout.stage], layout.where)
    models = [m for m in layout.models if m != FOUND]
    models += sorted(set(later["model"]) - set(models)) if FOUND in layout.models else []
    return models, select(later, {"model": models})


def _names(firsts: Sequence[Mapping[Any, Any]]) -> list[str]:
    """Detector, and method, data set and setting only where the figure holds several."""
    several = {key: len({first[key] for first in firsts}) > 1 for key in ("method", "dataset")}
    return [
        label("model", first["model"])
        + (f" on {label('dataset', first['dataset'])}" if several["dataset"] else "")
        + (f", {first['method']}" if several["method"] else "")
        + note
        for first, note in zip(firsts, setting_notes(firsts), strict=True)
    ]
