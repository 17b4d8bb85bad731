"""What became of every cell, and how far those are that are being computed: from records and what workers tell."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import rich.table
from rich.console import Group, RenderableType
from rich.text import Text

from dcodp.records import (
    Record,
    RunFolder,
    folders,
    no_runs,
    observe,
    read_progress,
    read_running,
    read_study,
    read_sweeps,
)
from dcodp.report.methods import budget_name, identity
from dcodp.report.terminal import console

STYLES = {"done": "green", "running": "cyan", "failed": "bold red", "interrupted": "yellow", "missing": "dim"}
ORDER = ("running", "failed", "interrupted", "missing", "done")  # of a table that has no room for all
FAR = ("Stage", "Progress", "Worker", "Device", "Left")


@dataclass(frozen=True)
class CellStatus:
    """One cell, or one job that computes what cells share; `detail` is one line: the error of a failed one, who works
    on a running one. What follows it is of running ones."""

    status: str  # done | running | failed | interrupted | missing
    run_id: str
    name: str
    detail: str = ""
    stage: str = ""
    progress: str = ""
    worker: str = ""
    device: str = ""
    left_s: float | None = None  # of the stage, at its present pace
    took_s: float | None = None  # of a cell that is done


def cells(results: Path) -> list[CellStatus]:
    """Recorded cells by run id, then those that a sweep asked for and that left no trace; of the jobs that compute what
    cells share those that run or failed.

    Raises InputError where there is none of them.
    """
    return Watched(results).cells()


class Watched:
    """A results folder that is looked at again and again. Records that nobody is at work on are read again only when
    they change, and none is kept: thousands of them are large."""

    def __init__(self, results: Path):
        self.results = results
        self._known: dict[Path, tuple[tuple[int, int], CellStatus]] = {}  # record → when and how large it was

    def cells(self) -> list[CellStatus]:
        """See `cells`."""
        sweeps = read_sweeps(self.results)
        kept = {record.run_id: _recorded(record, self.results / "runs") for record in read_study(self.results)}
        found = kept | {cell.run_id: cell for cell in self._seen("runs")}
        asked = {cell.run_id: (sweep.name, cell) for sweep in sweeps for cell in sweep.cells}
        listed = [found[run_id] for run_id in sorted(found)]
        listed += [
            CellStatus("missing", run_id, " ".join(cell.overrides), f"asked for by sweep {name}, not started")
            for run_id, (name, cell) in sorted(asked.items())
            if run_id not in found
        ]
        listed += [CellStatus("failed", "", f"sweep {sweep.name}", sweep.error) for sweep in sweeps if sweep.error]
        jobs = sorted(self._seen("jobs"), key=lambda job: job.run_id)
        listed += [job for job in jobs if job.status != "done"]
        if not listed:
            raise no_runs(self.results)
        return listed

    def _seen(self, kind: str) -> list[CellStatus]:
        return [self._look(folder) for folder in folders(self.results / kind)]

    def _look(self, folder: RunFolder) -> CellStatus:
        stamp = _stamp(folder)
        before = self._known.get(folder.record)
        if before is not None and before[0] == stamp:
            return before[1]
        cell = _recorded(observe(folder), folder.path.parent)
        if stamp is not None:
            self._known[folder.record] = stamp, cell
        return cell


def _stamp(folder: RunFolder) -> tuple[int, int] | None:
    """What changes with the record; None where there is none, or while a process is at work on it."""
    if folder.running.exists():
        return None
    try:
        found = folder.record.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _recorded(record: Record, root: Path) -> CellStatus:
    if record.status == "running":
        return _running(record, RunFolder(root / record.run_id))
    status = "failed" if record.status == "broken" else record.status
    detail = " ".join((record.error or "").split()) if status != "done" else ""
    took = sum((record.provenance.get("wall_seconds") or {}).values()) if status == "done" else None
    return CellStatus(status, record.run_id, _name(record), detail, took_s=took)


def _running(record: Record, folder: RunFolder) -> CellStatus:
    owner, told = read_running(folder) or {}, read_progress(folder) or {}
    where = f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('started')}"
    progress, left = "", None
    if "stages" in told:
        progress = f"stage {told.get('stages_done', 0) + 1} of {told['stages']}"
    if {"epoch", "epochs", "seconds"} <= told.keys():
        progress += f", epoch {told['epoch']} of {told['epochs']}"
        left = (told["epochs"] - told["epoch"]) * float(told["seconds"])
    worker = f"{owner.get('host')}:{owner.get('pid')}" if owner else ""
    return CellStatus(
        "running", record.run_id, _name(record), where,
        str(told.get("stage", "")), progress, worker, str(told.get("device", "")), left,
    )  # fmt: skip


def _name(record: Record) -> str:
    if not record.config:
        return ""
    who = identity(record.config)
    if record.run_id.startswith(("dense-", "scores-")):
        return f"{record.run_id.partition('-')[0]} of {who['model']} {who['dataset']}, seed {who['seed']}"
    budget = budget_name(who["target"], who["ratio"])
    return f"{who['model']} {who['dataset']} {who['method']} {budget}, seed {who['seed']}"


def in_progress(listed: Iterable[CellStatus]) -> bool:
    """Whether there is anything to wait for."""
    return any(cell.status in ("running", "missing") for cell in listed)


def table(listed: Sequence[CellStatus], rows: int | None = None) -> RenderableType:
    """All cells, or as many as there is room for: those at work first; below them how many are how, and how long the
    rest takes at the present pace."""
    shown = listed if rows is None else sorted(listed, key=lambda cell: ORDER.index(cell.status))[:rows]
    at_work = any(cell.status == "running" for cell in shown)
    drawn = rich.table.Table("Status", "Run", "Cell", *(FAR if at_work else ()), "Detail")
    for cell in shown:
        far = (cell.stage, cell.progress, cell.worker, cell.device, _clock(cell.left_s)) if at_work else ()
        detail = "" if cell.status == "running" else cell.detail
        drawn.add_row(Text(cell.status, STYLES[cell.status]), cell.run_id, *map(Text, (cell.name, *far, detail)))
    more = [f"… and {len(listed) - len(shown)} more"] if len(shown) < len(listed) else []
    return Group(drawn, *map(Text, more), Text(summary(listed)))


def summary(listed: Sequence[CellStatus]) -> str:
    """ "3 done, 2 running, 7 missing; about 0:14:00 left": by what the cells that are done took, on as many workers."""
    counts = {status: sum(cell.status == status for cell in listed) for status in STYLES}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    took = [cell.took_s for cell in listed if cell.took_s]
    if not took or not counts["running"]:
        return told
    left = (counts["missing"] + counts["running"] / 2) * sum(took) / len(took) / counts["running"]
    return f"{told}; about {_clock(left)} left"


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))


def print_cells(listed: Sequence[CellStatus]) -> None:
    """A table in a terminal; elsewhere one line per cell, tab-separated, nothing cut off."""
    to = console()
    if to.is_terminal:
        to.print(table(listed), highlight=False)
        return
    for cell in listed:
        print(line(cell))


def line(cell: CellStatus) -> str:
    """Status, run, cell and detail, tab-separated; of a running one also how far it is."""
    far = [cell.stage, cell.progress, cell.device, _clock(cell.left_s) and f"{_clock(cell.left_s)} left"]
    detail = ", ".join(filter(None, [cell.detail, *far]))
    return "\t".join((cell.status, cell.run_id, cell.name, detail))
