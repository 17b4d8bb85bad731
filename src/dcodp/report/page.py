"""One HTML page that carries everything in itself: tables, figures, pictures, verdicts and every cell's provenance.

What it says is decided here; how it is marked up, in templates/ (Jinja2, everything escaped).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

from jinja2 import Environment, PackageLoader, StrictUndefined

from dcodp.records import Record
from dcodp.report.claims import FAILS, HOLDS, NOT_MEASURED, Claim, Verdict, all_claims
from dcodp.report.coupling import Coupling
from dcodp.report.formats import cell_text
from dcodp.report.labels import label
from dcodp.report.layouts import FigureLayout
from dcodp.report.methods import budget_name, identity
from dcodp.report.tables import Table

SECTIONS = {
    "measured": "Measured",
    "stages": "Stages",
    "claims": "The paper's claims",
    "tables": "Tables",
    "figures": "Figures",
    "pictures": "Pictures",
    "groups": "Coupling groups",
    "missing": "Missing cells",
    "runs": "Runs",
    "unrecorded": "No records yet",
}
MARKS = {
    HOLDS: ("holds", "✓ holds"),
    FAILS: ("fails", "✗ fails"),
    NOT_MEASURED: ("unknown", "· not measured"),
}  # verdict → (class, text)


@dataclass(frozen=True)
class DrawnFigure:
    layout: FigureLayout
    png: bytes | None  # None where nothing was measured
    alt: str = ""  # what it shows, in words

    @property
    def datasets(self) -> Sequence[str]:
        """That it is of; none where it takes whatever was measured."""
        of = self.layout.where.get("dataset", ())
        return (of,) if isinstance(of, str) else of


@dataclass(frozen=True)
class Unrecorded:
    """What an experiment asks for and nobody has run; `cells` of a table alone."""

    name: str
    title: str
    command: str
    cells: int = 0


@dataclass(frozen=True)
class Page:
    """What the page shows, ready to be written down."""

    records: Sequence[Record]
    measured: Sequence[Table]  # the default layout
    tables: Sequence[Table]  # the experiments'
    figures: Sequence[DrawnFigure]
    verdicts: Sequence[Verdict]
    pictures: Sequence[tuple[Record, bytes]]  # JPEG
    pictures_left_out: int = 0
    couplings: Sequence[Coupling] = ()
    ladders: Sequence[Table] = ()
    cards: Sequence[Table] = ()  # of what `dcodp prune` made

    @property
    def counts(self) -> str:
        """ "3 records (2 done, 1 failed) and 1 card of dcodp prune"."""
        statuses = [record.status for record in self.records]
        told = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))
        cards = sum(len({row.labels[0] for row in table.rows}) for table in self.cards)
        parts = [(f"{_several(len(statuses), 'record')} ({told})", statuses)]
        parts += [(f"{_several(cards, 'card')} of dcodp prune", cards)]
        return " and ".join(text for text, there in parts if there)

    @property
    def claims(self) -> dict[str, Claim]:
        return all_claims()

    @property
    def lacking(self) -> list[Table]:
        """Tables with missing cells; those without any cell are `unrecorded`."""
        return [table for table in (*self.measured, *self.tables) if table.missing and table.measured]

    @property
    def unrecorded(self) -> list[Unrecorded]:
        """Declared tables and figures of which there is no record at all."""
        tables = [Unrecorded(t.name, t.title, t.command, len(t.missing)) for t in self.tables if not t.measured]
        layouts = [figure.layout for figure in self.figures if figure.png is None]
        return [*tables, *(Unrecorded(layout.name, layout.title, layout.command) for layout in layouts)]

    @property
    def nothing_judged(self) -> bool:
        return all(verdict.verdict == NOT_MEASURED for verdict in self.verdicts)

    def verdicts_on(self, claim: str, datasets: Sequence[str]) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.claim.name == claim and verdict.dataset in datasets]

    @cached_property
    def _by_id(self) -> dict[str, Record]:
        return {record.run_id: record for record in self.records}

    def record(self, run_id: str) -> Record:
        return self._by_id[run_id]


def _several(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def render_page(page: Page) -> str:
    environment = Environment(
        loader=PackageLoader("dcodp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    functions = {
        **{"label": label, "cell_text": cell_text, "data": _data},
        **{"source": _source, "run_name": _run_name, "told": _told},
    }
    return environment.get_template("page.html").render(page=page, sections=SECTIONS, marks=MARKS, **functions)


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _source(record: Record) -> str:
    """Where the numbers of a run come from, in one line."""
    told = record.provenance
    code = told.get("code") or {}
    torch = (told.get("libraries") or {}).get("torch")
    seconds = sum(v for v in (told.get("wall_seconds") or {}).values() if isinstance(v, int | float))
    parts = [
        record.status,
        f"seed {told.get('seed', '?')}",
        f"code {code.get('git') or code.get('version') or 'unknown'}",
        f"torch {torch}" if torch else "",
        str(told.get("device") or ""),
        f"data {_fingerprints(told.get('data_fingerprint'))}",
        f"{seconds:.0f} s",
    ]
    return ", ".join(filter(None, parts))


def _fingerprints(tree: object) -> str:
    """The data fingerprints, whatever their shape, on one line."""
    return json.dumps(tree, ensure_ascii=False).translate(str.maketrans("", "", '"{}')) if tree else "unknown"


def _run_name(record: Record) -> str:
    if not record.config:
        return record.run_id
    who = identity(record.config)
    names = label("model", who["model"]), label("dataset", who["dataset"]), who["method"]
    return f"{', '.join(names)}, {budget_name(who['target'], who['ratio'])}, seed {who['seed']}"


def _told(record: Record) -> str:
    """Everything that the record says of itself but the numbers; folders of the machine are left out."""
    config = {key: value for key, value in record.config.items() if key != "paths"}
    if isinstance(model := config.get("model"), Mapping):
        files = {key: PurePath(model[key]).name for key in ("weights", "backbone_weights") if model.get(key)}
        config["model"] = {**model, **files}
    provenance = dict(record.provenance)
    if isinstance(pruning := provenance.get("pruning"), Mapping):  # the groups have a section of their own
        provenance["pruning"] = {key: value for key, value in pruning.items() if key != "coupling"}
    told = {"provenance": provenance, "config": config, "notes": record.notes}
    return json.dumps(told, indent=1, ensure_ascii=False)
