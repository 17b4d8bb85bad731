"""One HTML page that carries everything in itself: tables, figures, pictures, verdicts and every cell's provenance."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

from dcodp.records import Record
from dcodp.report.claims import BY_NAME, CLAIMS, FAILS, HOLDS, Verdict
from dcodp.report.coupling import Coupling, Group
from dcodp.report.formats import cell_text
from dcodp.report.layouts import COLUMNS, LABELS, FigureLayout, label
from dcodp.report.query import budget_name, identity
from dcodp.report.style import CSS
from dcodp.report.tables import Row, Table

MARKS = {HOLDS: ("holds", "✓ holds"), FAILS: ("fails", "✗ fails")}
UNKNOWN = ("unknown", "· not measured")
# what a claim can require, as it is shown: figures, families of detectors, criteria
LACKING: dict[Any, str] = {
    **{column.value: column.label for column in COLUMNS.values()},
    **LABELS["importance"],
    **{"yolov8": "YOLOv8", "faster_rcnn": label("model", "faster_rcnn")},
}


@dataclass(frozen=True)
class DrawnFigure:
    layout: FigureLayout
    png: bytes | None  # None where nothing was measured


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


def render_page(page: Page) -> str:
    sections = {
        "measured": ("Measured", "".join(_table(table, page) for table in page.measured) or "<p>Nothing yet.</p>"),
        "claims": ("The paper's claims", _claims(page.verdicts)),
        "tables": ("Tables", "".join(_table(table, page) for table in page.tables) or "<p>No experiments given.</p>"),
        "figures": (
            "Figures",
            "".join(_figure(x, page.verdicts) for x in page.figures) or "<p>Nothing to draw yet.</p>",
        ),
        "pictures": ("Pictures", _pictures(page)),
        "groups": ("Coupling groups", "".join(map(_coupling, page.couplings)) or "<p>Nothing was pruned yet.</p>"),
        "missing": ("Missing cells", _missing(page)),
        "runs": ("Runs", "".join(map(_run, page.records))),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>' for key, (title, content) in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dcodp report</title><style>{CSS}</style></head><body>"
        f"<header><h1>Pruned detectors: what was measured</h1><p>{_counts(page.records)}</p></header>"
        f'<nav aria-label="Sections">{links}</nav><main>{body}</main></body></html>\n'
    )


def _counts(records: Sequence[Record]) -> str:
    statuses = [record.status for record in records]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))
    return (
        f"Rendered from {len(records)} records: {counts}. A cell that no record holds is shown as missing; "
        "the number under Runs opens what a row rests on."
    )


def _scroll(content: str, name: str) -> str:
    """A box that scrolls by itself, reachable by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{content}</div>'


def _table(table: Table, page: Page) -> str:
    heads = [f'<th class="text" scope="col">{escape(text)}</th>' for text in (*table.headers, "Runs")]
    heads += [f'<th scope="col">{escape(column.label)}</th>' for column in table.columns]
    records = {record.run_id: record for record in page.records}
    rows = "".join(_row(table, row, records) for row in table.rows)
    inside = f"<table><thead><tr>{''.join(heads)}</tr></thead>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.footnotes)
    return (
        f"<h3>{escape(table.title)}</h3>"
        + _scroll(f"{inside}<tbody>{rows}</tbody></table>", table.title)
        + f'<ul class="notes">{notes}{_bearing(table.claims, table.datasets, page.verdicts)}</ul>'
    )


def _row(table: Table, row: Row, records: Mapping[str, Record]) -> str:
    labels = [f'<td class="text">{escape(text)}</td>' for text in row.labels]
    labels[0] = f'<th class="text" scope="row">{escape(row.labels[0])}</th>'
    values = [
        f'<td class="{cell.state}">{escape(cell_text(cell, column))}</td>'
        for cell, column in zip(row.cells, table.columns, strict=True)
    ]
    kind = ' class="dense"' if label("stage", "dense") in row.labels else ""
    source = f'<td class="text">{_provenance(row.run_ids, records)}</td>'
    return f"<tr{kind}>{''.join([*labels, source, *values])}</tr>"


def _provenance(run_ids: Sequence[str], records: Mapping[str, Record]) -> str:
    if not run_ids:
        return "—"
    items = "".join(f"<li>{_source(records[run_id])}</li>" for run_id in run_ids)
    name = f"{len(run_ids)} run{'s' if len(run_ids) > 1 else ''}: where the row comes from"
    summary = f'<summary aria-label="{name}" title="{name}">{len(run_ids)}</summary>'
    return f'<details>{summary}<ul class="notes">{items}</ul></details>'


def _source(record: Record) -> str:
    """The run and where its numbers come from, in one line."""
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
    return f"{_link(record.run_id)}: {escape(', '.join(filter(None, parts)))}"


def _fingerprints(tree: object) -> str:
    """The data fingerprints, whatever their shape, on one line."""
    return json.dumps(tree, ensure_ascii=False).translate(str.maketrans("", "", '"{}')) if tree else "unknown"


def _link(run_id: str) -> str:
    return f'<a href="#run-{escape(run_id)}">{escape(run_id)}</a>'


def _bearing(claims: Iterable[str], datasets: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    """The verdicts, on the data sets shown, on the claims that a table or figure bears on."""
    lines = []
    for name in claims:
        of = [verdict for verdict in verdicts if verdict.claim == name and verdict.dataset in datasets]
        told = ", ".join(f"{escape(label('dataset', verdict.dataset))}: {_mark(verdict)}" for verdict in of)
        lines.append(f"<li>Claim: {escape(BY_NAME[name].statement)} {told}</li>")
    return "".join(lines)


def _mark(verdict: Verdict) -> str:
    style, text = MARKS.get(verdict.verdict, UNKNOWN)
    return f'<span class="{style}">{text}</span>'


def _claims(verdicts: Sequence[Verdict]) -> str:
    """One row per claim, one column per data set; the evidence opens in the cell."""
    datasets = list(dict.fromkeys(verdict.dataset for verdict in verdicts))
    heads = "".join(f'<th class="text" scope="col">{escape(label("dataset", name))}</th>' for name in datasets)
    rows = ""
    for claim in CLAIMS:
        cells = "".join(f'<td class="text">{_verdict(v)}</td>' for v in verdicts if v.claim == claim.name)
        text = f"{escape(claim.statement)}<br><small>Test: {escape(claim.test)}</small>"
        rows += f'<tr><th class="text" scope="row">{text}</th>{cells}</tr>'
    head = f'<thead><tr><th class="text" scope="col">Claim and its test</th>{heads}</tr></thead>'
    return _scroll(f'<table class="wide">{head}<tbody>{rows}</tbody></table>', "The paper's claims")


def _verdict(verdict: Verdict) -> str:
    if not verdict.evidence and not verdict.lacking:
        return _mark(verdict)
    items = "".join(
        f"<li>{'✓' if item.supports else '✗'} {escape(item.text)} ({', '.join(map(_link, item.run_ids))})</li>"
        for item in verdict.evidence
    )
    things = [budget_name("", it) if isinstance(it, float) else LACKING.get(it, str(it)) for it in verdict.lacking]
    lacking = f"<li>Still to measure: {escape(', '.join(things))}</li>" if things else ""
    return f'<details><summary>{_mark(verdict)}</summary><ul class="notes">{items}{lacking}</ul></details>'


def _figure(drawn: DrawnFigure, verdicts: Sequence[Verdict]) -> str:
    layout, title = drawn.layout, escape(drawn.layout.title)
    if drawn.png is None:
        return f"<h3>{title}</h3><p>Not measured yet.{_command(layout.command)}</p>"
    of = layout.where.get("dataset", ())
    claims = _bearing(layout.claims, (of,) if isinstance(of, str) else of, verdicts)
    notes = f'<ul class="notes">{claims}</ul>' if claims else ""
    image = _scroll(f'<img alt="{title}" src="{_data("png", drawn.png)}">', layout.title)
    return f"<figure>{image}<figcaption>{title}</figcaption>{notes}</figure>"


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _command(command: str) -> str:
    return f" Produce it with <code>{escape(command)}</code>." if command else ""


def _pictures(page: Page) -> str:
    if not page.pictures:
        return "<p>No run has drawn any.</p>"
    shown = "".join(
        f"<details><summary>{escape(_run_name(record))}</summary>{_picture(record, content)}</details>"
        for record, content in page.pictures
    )
    left = page.pictures_left_out
    return shown + (f"<p>{left} more lie in their run folders (pictures.png).</p>" if left else "")


def _picture(record: Record, content: bytes) -> str:
    name = f"Detections before and after: {_run_name(record)}"
    image = _scroll(f'<img alt="{escape(name)}" src="{_data("jpeg", content)}">', name)
    return f"<figure>{image}<figcaption>{_link(record.run_id)}</figcaption></figure>"


def _coupling(coupling: Coupling) -> str:
    """The groups of one detector with the channels that runs kept, then the layers that stay as they are."""
    name = label("model", coupling.model)
    if not coupling.groups:
        command = f"<code>dcodp graph {escape(coupling.model)}</code>"
        return f"<p>{escape(name)}: its records name no groups; {command} lists them.</p>"
    heads = ("Group", "Layers whose filters go together", "Channels", *(f"Kept: {run}" for run in coupling.kept))
    cells = "".join(
        f'<th class="{"text" if i < 2 else "number"}" scope="col">{escape(head)}</th>' for i, head in enumerate(heads)
    )
    rows = "".join(_group(group, coupling) for group in coupling.groups)
    frozen = "".join(f"<li>{escape(layer)}: {escape(why)}</li>" for layer, why in coupling.frozen.items())
    stays = f"<p>Layers that stay as they are:</p><ul>{frozen}</ul>" if frozen else ""
    inside = f'<table class="groups"><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>'
    count = f"{name}: {len(coupling.groups)} groups; layers that stay as they are: {len(coupling.frozen)}"
    return (
        f"<details><summary>{escape(count)}</summary>{_scroll(inside, f'Coupling groups of {name}')}"
        f"{stays}<p>From {_link(coupling.run_id)}.</p></details>"
    )


def _group(group: Group, coupling: Coupling) -> str:
    numbers = [group.channels, *(kept.get(group.name) for kept in coupling.kept.values())]
    cells = "".join(f"<td>{'—' if number is None else number}</td>" for number in numbers)
    layers = escape(", ".join(group.layers)) or "not recorded"
    return f'<tr><th class="text" scope="row">{escape(group.name)}</th><td class="text">{layers}</td>{cells}</tr>'


def _missing(page: Page) -> str:
    """What each table asks for and no record holds, with the command that produces it."""
    parts = []
    for table in (*page.measured, *page.tables):
        if table.missing:
            items = "".join(f"<li>{escape(name)}</li>" for name in table.missing)
            count = f"{escape(table.title)}: {len(table.missing)} missing"
            parts.append(f"<details><summary>{count}</summary><ul>{items}</ul>{_command(table.command)}</details>")
    return "".join(parts) or "<p>None.</p>"


def _run_name(record: Record) -> str:
    if not record.config:
        return record.run_id
    who = identity(record.config)
    names = label("model", who["model"]), label("dataset", who["dataset"]), who["method"]
    return f"{', '.join(names)}, {budget_name(who['target'], who['ratio'])}, seed {who['seed']}"


def _run(record: Record) -> str:
    """Everything that the record says of itself but the numbers; folders of the machine are left out."""
    config = {key: value for key, value in record.config.items() if key != "paths"}
    if isinstance(model := config.get("model"), Mapping):
        files = {key: PurePath(model[key]).name for key in ("weights", "backbone_weights") if model.get(key)}
        config["model"] = {**model, **files}
    provenance = dict(record.provenance)
    if isinstance(pruning := provenance.get("pruning"), Mapping):  # the groups have a section of their own
        provenance["pruning"] = {key: value for key, value in pruning.items() if key != "coupling"}
    told = {"provenance": provenance, "config": config, "notes": record.notes}
    error = f'<p class="fails">{escape(record.error)}</p>' if record.error else ""
    summary = f"<code>{escape(record.run_id)}</code> {escape(record.status)}: {escape(_run_name(record))}"
    detail = _scroll(f"<pre>{escape(json.dumps(told, indent=1, ensure_ascii=False))}</pre>", f"Run {record.run_id}")
    run = escape(record.run_id)
    return f'<div class="run" id="run-{run}">{error}<details><summary>{summary}</summary>{detail}</details></div>'
