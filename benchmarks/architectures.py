"""Prunes some two hundred architectures, proves each result exact, and shows what torch-pruning does with some of them.

    pip install torch-pruning==1.6.1          # the peer; without it its columns say "not installed"
    pip install -e '.[zoo]'                   # timm and others; without them their nets are passed over
    python benchmarks/architectures.py [--only NAME ...] [--size PIXELS] [--again] [--no-peer] [--out results]

Ours, in float64 with live signals: the pruned net against the dense net whose removed channels are zero ("error",
relative to the largest output; allowed is what rounding does to that dense net), what pruning changes, and what the
exchange of two input channels of one layer would change ("swapped"). The peer prunes by half with the settings of its
own examples. Each net is in a process of its own with a limit of time (the peer: of memory too). Every architecture's
result is kept in OUT/architectures.json as soon as it is there, so that an interrupted run goes on where it stopped; a
result is measured anew when the code has changed. Writes architectures.json, .csv and .md. Exit status 1 if anything
does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from documents.architectures import HEADER, at, cells, csv_text, document, summary
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from zoo import ARCHITECTURES, RATIOS, VISIBLE, check
from zoo.apart import apart, preload

from dcodp import graph, pruning, testing
from dcodp.files import write_atomically
from dcodp.processor import cpu_name
from dcodp.records.provenance import code_version, library_versions

PEER_SECONDS, PEER_GIB, OUR_SECONDS = 60, 8, 600
UNASKED = ("not installed", "not asked")
EXACT = testing.default_tolerance(torch.float64, 0.0)  # of nets in which rounding grows no more than usual
HERE = Path(__file__).resolve().parent


def code_digest(name: str) -> str:
    """Of everything that decides a result: the pruning core, the oracle, the proof and the list that has the net."""
    folders = [Path(str(package.__file__)).parent for package in (graph, pruning)]
    files = [f for folder in folders for f in sorted(folder.rglob("*.py"))]
    listed = sys.modules[ARCHITECTURES[name].build.__module__].__file__
    files += [Path(str(testing.__file__)), HERE / "zoo" / "proof.py", HERE / "zoo" / "entry.py", Path(str(listed))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def ours(name: str, size: int) -> dict[str, Any]:
    preload(ARCHITECTURES[name].needs)
    return {"failure": None, **apart(check, (name, size), OUR_SECONDS)}


def asked_peer(name: str, size: int, known: dict[str, Any], again: bool) -> dict[str, Any]:
    """The peer's result, measured once: it does not change with our code."""
    before = known.get("peer")
    if before and known.get("size") == size and before["problem"] not in UNASKED and not again:
        return before
    unasked = {"seconds": None, "removed": None, "problem": "not asked"}
    return peer(name, size) if ARCHITECTURES[name].peer else unasked


def peer(name: str, size: int) -> dict[str, Any]:
    """The better of the peer's attempts: YOLO in training mode as in its example, then in evaluation mode."""
    if importlib.util.find_spec("torch_pruning") is None:
        return {"seconds": None, "removed": None, "problem": "not installed"}
    modes = ("train", "eval") if ARCHITECTURES[name].family == "ultralytics" else ("eval",)
    result: dict[str, Any] = {}
    for mode in modes:
        result = {**peer_attempt(name, size, mode), "mode": mode}
        if result["problem"] is None:
            break
    return result


def peer_attempt(name: str, size: int, mode: str) -> dict[str, Any]:
    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (PEER_GIB << 30, PEER_GIB << 30))

    command = [sys.executable, str(HERE / "peer_torch_pruning.py"), name, str(size), mode]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PEER_SECONDS, preexec_fn=limit_memory,
            env={**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"seconds": PEER_SECONDS, "removed": None, "problem": f"no result after {PEER_SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"seconds": None, "removed": None, "problem": f"ended with status {done.returncode}"}
    return json.loads(lines[-1])


# --- the results as they come ---


def load(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_text())["architectures"] if path.exists() else {}
    return {name: rows[name] for name in ARCHITECTURES if name in rows}


def store(path: Path, rows: dict[str, Any]) -> None:
    ordered = {name: rows[name] for name in ARCHITECTURES if name in rows}
    tree = finite({"provenance": provenance(), "architectures": ordered})
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def provenance() -> dict[str, Any]:
    """Each row has its own command, date and code; here is what they have in common."""
    versions = library_versions()
    for package in ("torch-pruning", "timm", "transformers", "effdet", "segmentation-models-pytorch"):
        if importlib.util.find_spec(package.replace("-", "_")) is not None:
            versions[package] = importlib.metadata.version(package)
    return {
        "hardware": cpu_name(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": versions,
        "code": code_version(),
        "peer_limits": f"{PEER_SECONDS} s, {PEER_GIB} GiB",
        "allowed_error": EXACT,
        "needed_effect": VISIBLE,
    }


def finite(tree: Any) -> Any:
    """JSON knows no infinity: where shapes differ, the difference is written as a word."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [finite(value) for value in tree]
    return "other shapes" if isinstance(tree, float) and not math.isfinite(tree) else tree


# --- what they say ---


def shortcomings(name: str, row: dict[str, Any]) -> list[str]:
    """What does not hold for one architecture."""
    found = row["ours"]
    if found["failure"]:
        return [f"{name}: {found['failure']}"]
    problems = []
    allowed = [testing.default_tolerance(torch.float64, noise) for noise in at(row, "rounding")]
    if any(error > limit for error, limit in zip(at(row, "error"), allowed, strict=True)):
        problems.append(f"{name}: error {max(at(row, 'error')):.1e}")
    if found["groups"] and min(at(row, "swapped") + at(row, "changes")) < max(VISIBLE, *allowed):
        problems.append(f"{name}: the comparison sees too little")
    if at(row, "parameters_removed")[-1] < ARCHITECTURES[name].must_remove:
        problems.append(f"{name}: only {at(row, 'parameters_removed')[-1]:.0%} removed at {RATIOS[-1]}")
    if any(not f["reason"] for f in found["frozen"]):
        problems.append(f"{name}: a refusal without a reason")
    return problems


def write(out: Path, tree: dict[str, Any]) -> None:
    write_atomically(out / "architectures.csv", csv_text(tree))
    write_atomically(out / "architectures.md", document(tree))


def show(console: Console, tree: dict[str, Any]) -> None:
    table = Table(*HEADER, title="Pruned exactly?")
    for name, row in tree["architectures"].items():
        table.add_row(*map(escape, cells(name, row)))
    console.print(table)
    for line in summary(tree):
        console.print(line, highlight=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ARCHITECTURES), metavar="NAME", default=list(ARCHITECTURES))
    parser.add_argument("--size", type=int, default=None, help="side of the image in pixels; default: each net's own")
    parser.add_argument("--again", action="store_true", help="measure also what is there already")
    parser.add_argument("--no-peer", action="store_true", help="leave torch-pruning out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser.parse_args()


def measured(name: str, size: int, known: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """A row of the table."""
    found = ours(name, size)
    skipped = {"seconds": None, "removed": None, "problem": "not asked"}
    return {
        "size": size,
        "convolutional_detector": ARCHITECTURES[name].convolutional_detector,
        "code": code_digest(name),
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/architectures.py", *sys.argv[1:]]),
        "ours": found,
        "peer": skipped if chosen.no_peer else asked_peer(name, size, known, chosen.again),
    }


def main() -> None:
    chosen, console = arguments(), Console(width=None if sys.stdout.isatty() else 220)
    torch.set_num_threads(chosen.threads)
    path = chosen.out / "architectures.json"
    rows = load(path)
    for position, name in enumerate(chosen.only, 1):
        size, known = chosen.size or ARCHITECTURES[name].size, rows.get(name, {})
        if ARCHITECTURES[name].missing:
            console.print(f"{name} skipped: {ARCHITECTURES[name].missing}", highlight=False)
        elif chosen.again or (known.get("code"), known.get("size")) != (code_digest(name), size):
            console.print(f"{position}/{len(chosen.only)} {name}", highlight=False)
            rows[name] = measured(name, size, known, chosen)
            store(path, rows)
    if not rows:
        sys.exit("nothing was measured: none of these nets can be built here")
    tree = json.loads(path.read_text())
    rows = tree["architectures"]
    show(console, tree)
    write(chosen.out, tree)
    problems = [p for name in chosen.only if name in rows for p in shortcomings(name, rows[name])]
    for problem in problems:
        console.print(problem, style="red", highlight=False)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
