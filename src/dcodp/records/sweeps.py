"""Which cells a sweep was asked for, so that a cell that never started can be told as missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dcodp.errors import InputError
from dcodp.files import leased, read_json, write_atomically


@dataclass(frozen=True)
class SweepCell:
    run_id: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """The cells that a sweep was asked for; `error` says why its manifest cannot be read, else None."""

    name: str
    cells: tuple[SweepCell, ...]
    error: str | None = None


def write_sweep(results: Path, name: str, cells: Sequence[SweepCell]) -> Path:
    """Adds `cells` to the manifest of sweep `name`, so that each job may add its own; returns its path."""
    path = Path(results) / "sweeps" / f"{name}.json"
    with leased(path.parent, f"sweep {name}", marker=path.with_suffix(".lease")):
        known = _read_sweep(path).cells if path.exists() else ()
        merged = {cell.run_id: cell for cell in (*known, *cells)}
        rows = [{"run_id": cell.run_id, "overrides": list(cell.overrides)} for cell in merged.values()]
        write_atomically(path, json.dumps({"sweep": name, "cells": rows}, indent=1) + "\n")
    return path


def _read_sweep(path: Path) -> Sweep:
    """Raises InputError for anything but a manifest."""
    tree = read_json(path)
    try:
        cells = tuple(SweepCell(str(cell["run_id"]), tuple(map(str, cell["overrides"]))) for cell in tree["cells"])
        return Sweep(str(tree["sweep"]), cells)
    except (KeyError, TypeError):
        raise InputError(f"{path} is not a sweep manifest; delete it and start the sweep again") from None


def read_sweeps(results: Path) -> list[Sweep]:
    """Every manifest under results/sweeps; an unreadable one has no cells and says why in `error`."""
    sweeps = []
    for path in sorted((Path(results) / "sweeps").glob("*.json")):
        try:
            sweeps.append(_read_sweep(path))
        except InputError as error:
            sweeps.append(Sweep(path.stem, (), str(error)))
    return sweeps
