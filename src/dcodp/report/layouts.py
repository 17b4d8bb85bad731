"""What a table or figure shows, declared: which records, which rows, which columns, which claims.

The paper's are YAML files in experiments/, one each; the default layout is built in and shows whatever was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcodp.errors import InputError
from dcodp.files import digest
from dcodp.records import STAGES
from dcodp.report.query import AVERAGE_PRECISION, FIELDS

FIGURES = ("curve", "class_bars", "size_bars", "pareto")
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
HEADERS = {
    **{"model": "Detector", "dataset": "Data", "stage": "Stage", "method": "Method", "budget": "Ratio"},
    **{"importance": "Importance", "aggregate": "Score of a group", "interlayer": "Inter-layer coupling"},
    "compensate": "Compensation",
    **{
        "ratio": "Ratio",
        "scope": "Scope",
        "target": "Target",
        "seed": "Seed",
        "family": "Family",
        "experiment": "Experiment",
    },
}
LABELS: dict[str, dict[Any, str]] = {
    "stage": {"dense": "dense", "pruned": "pruned", "finetuned": "fine-tuned"},
    "model": {
        **{f"yolov{n}": f"YOLOv{n}" for n in ("7", *(f"8{size}" for size in "nsmlx"))},
        **{"yolov7_tiny_test": "YOLOv7 (tiny, for tests)", "faster_rcnn_tiny_test": "Faster R-CNN (tiny, for tests)"},
        **{"faster_rcnn": "Faster R-CNN", "faster_rcnn_v2": "Faster R-CNN v2", "retinanet": "RetinaNet"},
        "faster_rcnn_mobilenet": "Faster R-CNN, MobileNetV3",
    },
    "dataset": {
        **{"voc2007": "VOC2007", "voc2012": "VOC2012", "voc0712": "VOC07+12", "coco2017": "COCO val2017"},
        **{"shapes": "shapes", "custom": "custom"},
    },
    "importance": {
        **{"dcodp": "DCODP", "dcodp_greedy": "DCODP, greedy", "chip": "CHIP", "rank": "CP by rank", "hrank": "HRank"},
        **{"slimming": "Slimming", "thinet": "ThiNet", "lasso": "LASSO", "taylor": "Taylor", "random": "Random"},
        **{"l1": "L1", "l2": "L2", "fpgm": "FPGM", "lamp": "LAMP"},
    },
    "aggregate": {
        **{name: f"{name} over its layers" for name in ("sum", "mean", "max")},
        "consumer": "of what its consumers read",
    },
    "interlayer": {True: "yes", False: "no"},
    "compensate": {True: "yes", False: "no"},
}


@dataclass(frozen=True)
class TableLayout:
    """`rows`: field → its values in order; FOUND among a detector's values adds the others measured, FOUND alone
    takes the combinations measured. `where` fixes the other fields. `dense` puts the dense net before its rows."""

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
    """`kind`: one of FIGURES. `metrics`: one panel each (class_bars and pareto: the first only)."""

    name: str
    title: str
    kind: str
    metrics: tuple[str, ...]
    where: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = (FOUND,)
    ratios: tuple[float, ...] = ()  # bars only; empty: all that were measured
    classes: tuple[str, ...] = ()  # class_bars only; empty: all that were measured
    claims: tuple[str, ...] = ()
    command: str = ""


Layout = TableLayout | FigureLayout


def label(key: str, value: Any, special: Mapping[str, Mapping[Any, str]] | None = None) -> str:
    """How a field's value is shown: ("ratio", 0.5) → "50 %", ("model", "faster_rcnn") → "Faster R-CNN"."""
    for known in ((special or {}).get(key, {}), LABELS.get(key, {})):
        if value in known:
            return known[value]
    return f"{100 * value:.4g} %" if key == "ratio" else str(value)


STANDARD = ("map50", "map50_95", "ap75", "parameters", "parameters_removed", "flops", "flops_removed", "latency_ms")
DEFAULT_TABLE = TableLayout(
    "results",
    "Measured",
    rows={"method": (FOUND,), "budget": (FOUND,), "stage": ("pruned", "finetuned")},
    columns=tuple(COLUMNS[name] for name in (*STANDARD[:3], "channels_removed", *STANDARD[3:])),
)


def default_figures(dataset: str) -> tuple[FigureLayout, ...]:
    """What is drawn of every data set that has records, whether or not an experiment names it."""
    name, file, where = label("dataset", dataset), file_name(dataset), {"dataset": dataset}
    both, sizes = ("map50", "map50_95"), ("ap_small", "ap_medium", "ap_large")
    return (
        FigureLayout(f"{file}_ratio", f"{name}: AP against the pruning ratio", "curve", both, where),
        FigureLayout(f"{file}_flops", f"{name}: AP against FLOPs", "pareto", ("map50_95",), where),
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
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
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
    where = _where(options, {"aggregate": "sum", "compensate": False, "scope": "local", "target": ""}, rows)
    for key in ("model", "dataset", "importance", "interlayer", "ratio"):
        if key not in rows and key not in where and not (key == "ratio" and _budgets_given(rows, where)):
            raise InputError(f"say which {key}, under rows or where, or unlike records end up in one cell")
    columns = tuple(itertools.chain.from_iterable(_columns(entry) for entry in options["columns"]))
    stage = options.get("stage", "finetuned")
    for name in (stage, *(column.stage or stage for column in columns), *rows.get("stage", ())):
        _known("stage", name, STAGES)
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
    rest = {key: options[key] for key in ("name", "title", "kind", "command") if key in options}
    return FigureLayout(**rest, **lists, where=_where(options, {}, {}))
