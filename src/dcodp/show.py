"""Before and after a run: which cells are there already, and the table of what came out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dcodp.compose import Cell
from dcodp.config import Config
from dcodp.files import digest
from dcodp.progress import set_up_logging
from dcodp.records import SweepCell, is_done, load_records, run_folder, write_sweep


def announce(asked: Sequence[Cell]) -> list[Cell]:
    """Write the sweep's manifest and say what is there already; returns the cells that are still to compute."""
    from dcodp.identity import run_id

    set_up_logging()
    ids = [run_id(config) for _, config in asked]
    results = Path(asked[0][1].paths.results)
    if len(asked) > 1:
        cells = [SweepCell(i, tuple(overrides)) for i, (overrides, _) in zip(ids, asked, strict=True)]
        write_sweep(results, digest(ids), cells)
        for _, config in asked:
            config.wandb.group = config.wandb.group or f"sweep-{digest(ids)}"
    missing = [cell for i, cell in zip(ids, asked, strict=True) if not is_done(run_folder(results, i))]
    there = len(asked) - len(missing)
    if there:
        what = "all cells were there already" if not missing else f"{there} of {len(asked)} cells were there already"
        logging.getLogger(__name__).info("%s, under %s", what, results / "runs")
    return missing


def show(configs: Sequence[Config], experiments: Path) -> int:
    """The table of these cells in the terminal, and all tables and figures under results/; 1 where a cell failed."""
    from dcodp.identity import run_id
    from dcodp.report.build import render_report
    from dcodp.report.terminal import print_results

    results = Path(configs[0].paths.results)
    ids = {run_id(config) for config in configs}
    records = [r for r in load_records(results) if r.run_id in ids]
    print_results(records)
    failed = [r for r in records if r.status != "done"]
    for record in failed:
        print(f"{record.run_id}: {record.status}: {record.error}", file=sys.stderr)
    if any(r.status == "done" for r in records):
        page = render_report(results, results, experiments if experiments.is_dir() else None).page
        logging.getLogger(__name__).info("tables, figures and pictures: %s", page)
    return int(bool(failed) or len(records) < len(ids))
