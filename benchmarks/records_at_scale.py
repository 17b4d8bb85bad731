"""Seconds and memory that status and report take for thousands of cells, whose records are made up.

    python benchmarks/records_at_scale.py [--records 10000] [--out results]

The records are those of results/demo with other detectors, criteria, ratios and seeds, and figures that differ; they
are written into a temporary folder. Each step is measured in a process of its own, for a tenth of the records and for
all: what takes ten times as long grows with their number, what takes a hundred times as long with its square. Writes
records_at_scale.md and .json. Exit status 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from documents.records_at_scale import LIMITS, MEMORY_LIMIT_MB, document

from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records import Record, SweepCell, load_records, run_folder, write_record, write_sweep
from dcodp.records.provenance import code_version, library_versions

DETECTORS = ("yolov8n", "yolov8s", "yolov7", "faster_rcnn")
CRITERIA = ("dcodp", "l1", "taylor", "thinet", "random")
RATIOS = tuple(percent / 100 for percent in range(5, 55, 5))
SEEDS = 50
STUDY = Path(__file__).resolve().parents[1] / "results" / "demo"


def made_up() -> Iterator[Record]:
    """10,000 cells, in an order in which any number of the first ones has all detectors and criteria."""
    found = load_records(STUDY)
    chance = random.Random(0)
    for i, (seed, ratio, criterion, model) in enumerate(itertools.product(range(SEEDS), RATIOS, CRITERIA, DETECTORS)):
        record = copy.deepcopy(found[i % len(found)])
        record.run_id = f"{i:012x}"
        record.config["model"]["name"] = model
        record.config["importance"]["name"] = criterion
        record.config |= {"ratio": ratio, "target": None, "seed": seed, "method": "paper"}
        for stage in record.stages:
            stage["map50_95"] = chance.random()
        yield record


def write_made_up(results: Path, count: int) -> None:
    """`count` cells and their sweep's manifest; the last hundredth never started."""
    cells = list(itertools.islice(made_up(), count))
    for record in cells[: count - count // 100]:
        write_record(run_folder(results, record.run_id), record)
    write_sweep(results, "scale", [SweepCell(record.run_id, (f"seed={record.config['seed']}",)) for record in cells])


# --- what is measured; each returns the number of its lines or rows ---


def status(results: Path) -> int:
    """`dcodp status` into a pipe."""
    from dcodp.report.cell_status import cells, print_cells

    with contextlib.redirect_stdout(io.StringIO()) as told:
        print_cells(cells(results))
    return told.getvalue().count("\n")


def watch(results: Path) -> int:
    """Another look of `dcodp status --watch` in a terminal, of which the first is not counted."""
    from dcodp.report.cell_status import Watched, table
    from dcodp.report.terminal import console

    watched = Watched(results)
    watched.cells()
    STARTED.append(time.perf_counter())
    listed = watched.cells()
    console().print(table(listed, 40))
    return len(listed)


def query(results: Path) -> int:
    """Records as rows, means over seeds, the default tables."""
    from dcodp.report.query import measurements
    from dcodp.report.tables import default_tables

    return sum(len(table.rows) for table in default_tables(measurements(load_records(results))))


def report(results: Path) -> int:
    """`dcodp report`: all tables, figures and the page, whose size it returns."""
    from dcodp.report.build import render_report

    with tempfile.TemporaryDirectory() as out:
        return render_report(results, Path(out)).page.stat().st_size


STEPS = {step.__name__: step for step in (status, watch, query, report)}
STARTED: list[float] = []


def measure(step: str, results: Path) -> dict[str, float]:
    STARTED.append(time.perf_counter())
    found = STEPS[step](results)
    seconds = time.perf_counter() - STARTED[-1]
    return {"seconds": seconds, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "found": found}


# --- the whole measurement ---


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=len(DETECTORS) * len(CRITERIA) * len(RATIOS) * SEEDS)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "RESULTS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        step, results = chosen.measure
        print(json.dumps(measure(step, Path(results))), file=sys.stderr)
        return
    rows = {str(count): all_steps(count) for count in (chosen.records // 10, chosen.records)}
    write(chosen.out, rows)
    steps = rows[str(chosen.records)]["steps"]
    sys.exit(any(steps[s]["seconds"] > LIMITS[s] or steps[s]["memory_mb"] > MEMORY_LIMIT_MB for s in LIMITS))


def all_steps(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        start = time.perf_counter()
        write_made_up(results, count)
        written = time.perf_counter() - start
        size = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
        print(f"{count} records: {size / 1e6:.0f} MB written in {written:.1f} s", flush=True)
        return {"megabytes": size / 1e6, "write_seconds": written, "steps": {s: apart(s, results) for s in STEPS}}


def apart(step: str, results: Path) -> dict[str, float]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--measure", step, str(results)]
    told = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    found = json.loads(told.splitlines()[-1])
    print(f"  {step}: {found['seconds']:.1f} s, {found['memory_mb']:.0f} MB, {found['found']} found", flush=True)
    return found


def write(out: Path, rows: dict[str, dict[str, Any]]) -> None:
    command = " ".join(["python", "benchmarks/records_at_scale.py", *sys.argv[1:]])
    what = {"hardware": cpu_name(), "libraries": library_versions(), "code": code_version(), "command": command}
    measured = {"provenance": what, "records": rows}
    write_atomically(out / "records_at_scale.json", json.dumps(measured, indent=1) + "\n")
    write_atomically(out / "records_at_scale.md", document(measured))


if __name__ == "__main__":
    main()
