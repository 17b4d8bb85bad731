"""What a table or figure shows, declared: which records, which rows, which columns, which claims.

The paper's are YAML files in experiments/, one each; the default layout is built in and shows whatever was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import digest
from dcodp.report.labels import known_values, label, read_yaml
from dcodp.report.methods import DEFAULTS
from dcodp.report.query import AVERAGE_PRECISION, FIELDS

FIGURES = ("curve", "class_bars", "size_bars", "pareto")
SAID = ("importance", "interlayer", "ratio")  # fields of the method that every table says; others have a default
AGAINST = ("flops", "latency_ms")  # what accuracy can be drawn against
FOUND = "*"  # in a list of row values: and whatever else was measured


@dataclass(frozen=True)
class Column:
    """One column of figures; `stage` overrides the row's, for tables that show several stages in one row."""

    label: str
    value: str  # a name that query.measure knows
    format: str = "ap"  # ap | share | millions | giga | ms | count
    stage: str | None = None


COLUMNS = {
    column.value: column
    for column in (
        Column("mAP50", "map50"),
        Column("mAP50-95", "map50_95"),
        Column("AP75", "ap75"),
        Column("APS", "ap_small"),
        Column("APM", "ap_medium"),
        Column("APL", "ap_large"),
        Column("VOC mAP", "voc_map"),
        Column("Channels removed (%)", "channels_removed", "share"),
        Column("Parameters (M)", "parameters", "millions"),
        Column("Parameters removed (%)", "parameters_removed", "share"),
        Column("FLOPs (G)", "flops", "giga"),
        Column("FLOPs removed (%)", "flops_removed", "share"),
        Column("Latency (ms)", "latency_ms", "ms"),
    )
}
FORMATS = ("ap", "share", "millions", "giga", "ms", "count")


@dataclass(frozen=True)
class TableLayout:
    """`rows`: field → its values in order; FOUND among a detector's values adds the others measured, FOUND alone
    takes the combinations measured, with the stages still to come. `where` fixes the other fields. `dense` puts the
    dense net before its rows."""

    name: str
    title: str
    rows: Mapping[str, tuple[Any, ...]]
    columns: tuple[Column, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    stage: str = "finetuned"  # of the rows, where `stage` is not among them
    dense: bool = True
    labels: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    command: str = ""

    def label(self, key: str, value: Any) -> str:
        return label(key, value, self.labels)


@dataclass(frozen=True)
class FigureLayout:
    """`kind`: one of FIGURES. `metrics`: one panel each (class_bars and pareto: the first only). `against`: one of
    AGAINST, what a pareto figure has accuracy against."""

    name: str
    title: str
    kind: str
    metrics: tuple[str, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = (FOUND,)
    stage: str = "finetuned"  # of the nets that are drawn beside the dense one
    ratios: tuple[float, ...] = ()  # bars only; empty: all that were measured
    classes: tuple[str, ...] = ()  # class_bars only; empty: all that were measured
    claims: tuple[str, ...] = ()
    command: str = ""
    against: str = "flops"


Layout = TableLayout | FigureLayout


STANDARD = ("map50", "map50_95", "ap75", "parameters", "parameters_removed", "flops", "flops_removed", "latency_ms")
DEFAULT_TABLE = TableLayout(
    "results",
    "Measured",
    rows={"method": (FOUND,), "budget": (FOUND,), "stage": (FOUND,)},
    columns=tuple(COLUMNS[name] for name in (*STANDARD[:3], "channels_removed", *STANDARD[3:])),
)


def default_figures(dataset: str) -> tuple[FigureLayout, ...]:
    """What is drawn of every data set that has records, whether or not an experiment names it."""
    name, file, where = label("dataset", dataset), file_name(dataset), {"dataset": dataset}
    both, sizes = ("map50", "map50_95"), ("ap_small", "ap_medium", "ap_large")
    return (
        FigureLayout(f"{file}_ratio", f"{name}: AP against the pruning ratio", "curve", both, where),
        FigureLayout(f"{file}_flops", f"{name}: AP against FLOPs", "pareto", ("map50_95",), where),
        FigureLayout(
            f"{file}_latency", f"{name}: AP against latency", "pareto", ("map50_95",), where, against="latency_ms"
        ),
        FigureLayout(f"{file}_classes", f"{name}: AP of each class", "class_bars", ("map50",), where),
        FigureLayout(f"{file}_sizes", f"{name}: AP by object size", "size_bars", sizes, where),
    )


def file_name(name: str) -> str:
    """The name itself where it consists of letters, digits, - and _; else those, and a digest that keeps it unique."""
    plain = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    return name if plain == name else f"{plain}-{digest(name)}"


def load_layouts(folder: Path) -> list[Layout]:
    """Every experiments/*.yaml, by file name. Raises InputError naming the file and key that cannot be used."""
    return [_layout(path) for path in sorted(folder.glob("*.yaml"))]


def _layout(path: Path) -> Layout:
    tree = read_yaml(path)
    if not isinstance(tree, dict) or tree.get("kind") not in ("table", *FIGURES):
        raise InputError(f"{path} needs `kind:` table, {', '.join(FIGURES)}")
    options: dict[str, Any] = {"name": path.stem, "title": path.stem, **tree}
    kind = TableLayout if options["kind"] == "table" else FigureLayout
    allowed = (*kind.__dataclass_fields__, "kind")
    for key in options:
        if key not in allowed:
            raise InputError(f"{path}: {key} is not known; use {', '.join(allowed)}")
    try:
        return _table(options) if kind is TableLayout else _figure(options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: {type(error).__name__} {error}; compare it with the other files there") from None


def _table(options: dict[str, Any]) -> TableLayout:
    rows = {key: tuple(values) for key, values in options["rows"].items()}
    where = _where(options, {key: value for key, value in DEFAULTS.items() if key not in SAID}, rows)
    for key in ("model", "dataset", *SAID):
        if key not in rows and key not in where and not (key == "ratio" and _budgets_given(rows, where)):
            raise InputError(f"say which {key}, under rows or where, or unlike records end up in one cell")
    columns = tuple(itertools.chain.from_iterable(_columns(entry) for entry in options["columns"]))
    stage = options.get("stage", "finetuned")
    for name in (stage, *(column.stage or stage for column in columns), *set(rows.get("stage", ())) - {FOUND}):
        _known("stage", name, known_values("stage"))
    rest = {key: options[key] for key in ("name", "title", "dense", "labels", "command") if key in options}
    return TableLayout(
        **rest, rows=rows, where=where, columns=columns, stage=stage, claims=tuple(options.get("claims", ()))
    )


def _budgets_given(rows: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether something else than a ratio says how much is removed."""
    return bool(where.get("target") or where.get("budget") or "target" in rows or "budget" in rows)


def _where(options: dict[str, Any], defaults: dict[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    given = {*rows, *(("target",) if "budget" in rows else ())}  # a budget says which target, or that there is none
    where = {key: value for key, value in defaults.items() if key not in given} | options.get("where", {})
    for key in (*where, *rows):
        _known("field", key, FIELDS)
    return where


def _known(what: str, name: Any, allowed: tuple[str, ...]) -> None:
    if name not in allowed:
        raise InputError(f"{what} {name} is not known; use {', '.join(allowed)}")


def _columns(entry: Any) -> list[Column]:
    """A name of COLUMNS, {value, label, format, stage}, or {per_class: METRIC, classes: […]}."""
    if isinstance(entry, str):
        _known("column", entry, tuple(COLUMNS))
        return [COLUMNS[entry]]
    if "per_class" in entry:
        metric = entry["per_class"]
        _known("per_class", metric, ("map50", "map50_95", "voc"))
        path = "voc_per_class/{}" if metric == "voc" else "per_class/{}/" + metric
        return [Column(name, path.format(name), stage=entry.get("stage")) for name in entry["classes"]]
    _known("column", entry["value"], tuple(COLUMNS))
    known = COLUMNS[entry["value"]]
    _known("format", entry.get("format", "ap"), FORMATS)
    return [Column(**{"label": known.label, "format": known.format, **entry})]


def _figure(options: dict[str, Any]) -> FigureLayout:
    for metric in options["metrics"]:
        _known("metric", metric, (*AVERAGE_PRECISION, "voc_map"))
    names = ("metrics", "models", "ratios", "classes", "claims")
    lists: dict[str, Any] = {key: tuple(options[key]) for key in names if key in options}
    _known("stage", options.get("stage", "finetuned"), known_values("stage"))
    _known("against", options.get("against", AGAINST[0]), AGAINST)
    rest = {key: options[key] for key in ("name", "title", "kind", "stage", "command", "against") if key in options}
    return FigureLayout(**rest, **lists, where=_where(options, {}, {}))
