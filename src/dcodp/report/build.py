"""Records under a results folder → tables, figures and the page under an output folder."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image
from rich.console import Console
from rich.progress import track

from dcodp.data.pixels import UNREADABLE
from dcodp.errors import InputError
from dcodp.files import write_atomically
from dcodp.records import Record, load_records, no_runs, run_folder
from dcodp.report import cards, claims, figures, pareto
from dcodp.report.alt_texts import alt_text, of_panels
from dcodp.report.coupling import couplings
from dcodp.report.formats import RENDERERS
from dcodp.report.ladders import ladders
from dcodp.report.layouts import FigureLayout, Layout, TableLayout, default_figures, file_name, load_layouts
from dcodp.report.page import DrawnFigure, Page, render_page
from dcodp.report.query import measurements
from dcodp.report.series import number_of_series
from dcodp.report.tables import Table, build_table, default_tables

log = logging.getLogger(__name__)
MAX_SERIES = 24  # of a figure that nobody asked for
MAX_PICTURES, PICTURE_WIDTH = 24, 1300  # on the page; the full ones stay in their run folders


@dataclass(frozen=True)
class Report:
    page: Path
    tables: tuple[Table, ...]  # the default layout's
    missing: int  # cells that no record holds, of tables with some that are held
    unrecorded: tuple[str, ...]  # experiments of which there is no record at all
    files: tuple[Path, ...]


def render_report(results: Path, out: Path, experiments: Path | None = None) -> Report:
    """Writes OUT/tables, OUT/figures and OUT/report.html.

    Raises InputError where there is no record, an experiment file is wrong, or `out` cannot be written.
    """
    records, found = load_records(results), cards.load_cards(results)
    if not records and not found:
        raise no_runs(results)
    layouts = _layouts(experiments)
    frame = measurements(records)
    measured = default_tables(frame)
    tables = [build_table(layout, frame) for layout in layouts if isinstance(layout, TableLayout)]
    files = write_tables(out / "tables", {"results": measured, **{table.name: [table] for table in tables}})
    drawn, paths = _draw_all(out / "figures", [x for x in layouts if isinstance(x, FigureLayout)], frame)
    compared = _draw_cards(out / "figures", found)
    pictures = _pictures(results, records)
    page = Page(
        records,
        measured,
        tables,
        [*drawn, *(figure for figure, _ in compared)],
        claims.judge(frame),
        pictures[:MAX_PICTURES],
        pictures_left_out=len(pictures[MAX_PICTURES:]),
        couplings=couplings(results, records),
        ladders=ladders(records),
        cards=cards.tables(found),
    )
    write_atomically(out / "report.html", render_page(page))
    missing = sum(len(table.missing) for table in page.lacking)
    unrecorded = tuple(experiment.name for experiment in page.unrecorded)
    files = (*files, *paths, *(path for _, saved in compared for path in saved), out / "report.html")
    return Report(out / "report.html", tuple(measured), missing, unrecorded, files)


def _layouts(experiments: Path | None) -> list[Layout]:
    if experiments is None:
        return []
    if not experiments.is_dir():
        raise InputError(f"{experiments} is no folder; give the one with the tables' and figures' YAML files")
    layouts = load_layouts(experiments)
    for layout in layouts:
        claims.check_names(layout.claims, str(experiments / f"{layout.name}.yaml"))
    return layouts


def write_tables(folder: Path, groups: dict[str, Sequence[Table]]) -> list[Path]:
    """FOLDER/NAME.md, .csv and .tex for each named group of tables."""
    paths = []
    for name, tables in groups.items():
        for ending, render in RENDERERS.items():
            paths.append(folder / f"{name}.{ending}")
            write_atomically(paths[-1], render(tables))
    return paths


def _draw_all(
    folder: Path, layouts: Sequence[FigureLayout], frame: pd.DataFrame
) -> tuple[list[DrawnFigure], list[Path]]:
    """The experiments' figures, then the default ones of every data set, unless nobody could read them; a figure of
    nothing leaves no old file."""
    datasets = sorted(set(frame["dataset"]))
    own = [figure for dataset in datasets for figure in default_figures(dataset)]
    crowded = {layout.name for layout in own if number_of_series(layout, frame) > MAX_SERIES}
    if crowded:
        log.info("%s: more than %d series, not drawn; declare figures of some", ", ".join(sorted(crowded)), MAX_SERIES)
    every = [*layouts, *(layout for layout in own if layout.name not in crowded)]
    drawn, paths = [], []
    for layout in track(every, description="Drawing", transient=True, disable=not Console().is_terminal):
        figure = figures.draw(layout, frame)
        if figure is not None:
            saved = figures.save(figure, folder, layout.name)
            paths += saved
            drawn.append(DrawnFigure(layout, saved[0].read_bytes(), alt_text(layout, frame)))
            continue
        for ending in ("png", "pdf"):
            (folder / f"{layout.name}.{ending}").unlink(missing_ok=True)
        if layout in layouts:
            drawn.append(DrawnFigure(layout, None))
    return drawn, paths


def _draw_cards(folder: Path, found: Sequence[cards.Card]) -> list[tuple[DrawnFigure, tuple[Path, Path]]]:
    """A figure and its files for each group of cards that have an accuracy in common."""
    drawn = []
    for group in cards.alike(found):
        gain = cards.gain_of(group)
        if gain is None:
            continue
        title = f"{cards.title_of(group)}: {gain.label} against FLOPs and latency"
        panels = cards.panels(group, gain)
        figure = pareto.draw(panels, f"{gain.label} × 100", title, cards.caption_of(group))
        saved = figures.save(figure, folder, file_name(f"cards-{' '.join(group[0].subject)}"))
        layout = FigureLayout(saved[0].stem, title, "pareto", (gain.value,))
        drawn.append((DrawnFigure(layout, saved[0].read_bytes(), of_panels(title, gain.label, panels)), saved))
    return drawn


def _pictures(results: Path, records: Sequence[Record]) -> list[tuple[Record, bytes]]:
    """Smaller JPEG copies for the page, of the first MAX_PICTURES; empty bytes for those left out."""
    found = [(record, path) for record in records if (path := run_folder(results, record.run_id).pictures).is_file()]
    return [(record, _jpeg(path) if i < MAX_PICTURES else b"") for i, (record, path) in enumerate(found)]


def _jpeg(path: Path) -> bytes:
    try:
        with Image.open(path) as stored:
            image = stored.convert("RGB")
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read as an image ({error}); restore it or leave it out") from None
    image.thumbnail((PICTURE_WIDTH, 100 * PICTURE_WIDTH), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=80)
    return stream.getvalue()
