"""`dcodp run`, which `python run.py` is too: one cell, or with -m a sweep, composed and launched by Hydra."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dcodp.errors import InputError
from dcodp.resources import folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dcodp.compose import Cell
    from dcodp.config import Config


RESUME = "--resume-failed"


def run(context: typer.Context) -> None:
    """Run one cell, or with -m a sweep: dcodp run [-m] key=value …  (keys and choices: dcodp run --help).

    dcodp run --resume-failed [paths.results=…] [launcher=…]: the cells of all sweeps there that are not done.
    """
    raise typer.Exit(run_typed(context.args))


def run_typed(arguments: Sequence[str]) -> int:
    """Checks every cell first, computes those that are not there, then shows the table. Returns the exit status."""
    # Threads that wait must not spin: with another process on the same cores that slows both about tenfold. OpenMP
    # reads this when it is loaded, so it comes before everything that imports torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dcodp.compose import cells, expanded, register, unfinished
    from dcodp.own import configuration
    from dcodp.show import announce, show

    register()
    arguments = expanded(arguments)
    again = RESUME in arguments
    arguments = [word for word in arguments if word != RESUME]
    typed, words = _parsed(arguments)
    if typed.config_dir is None and (found := configuration(words)):
        typed.config_dir, arguments = found, ["--config-dir", str(found), *arguments]
    if any(word.startswith("-") for word in words):  # --help, --cfg, --info …: Hydra's own
        return launch(arguments)
    try:
        conf = folder("conf")
        asked = unfinished(conf, words, typed.config_dir) if again else cells(conf, words, typed.config_dir)
        if len(asked) > 1 and not (typed.multirun or again):
            raise InputError(f"{len(asked)} cells were asked for; add -m to run a sweep")
        status = 0
        if missing := announce(asked):
            status = attempt(asked[0][1]) if len(asked) == 1 else sweep(missing, arguments, words, typed.config_dir)
        return status or show([config for _, config in asked], folder("experiments"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The two of Hydra's options that we look at ourselves, and all other words."""
    parser = argparse.ArgumentParser("dcodp run", add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", type=Path)
    return parser.parse_known_args(arguments)


def sweep(missing: Sequence[Cell], arguments: Sequence[str], words: Sequence[str], config_dir: Path | None) -> int:
    """The cells that are not there yet, on the launcher's workers. Their records say how they ended: exit status 0."""
    from dcodp.compose import launcher
    from dcodp.workers.launching import knows, run_sweep

    settings = launcher(folder("conf"), words, config_dir)
    if not knows(settings):
        return launch(arguments)
    run_sweep([config for _, config in missing], settings)
    return 0


def launch(arguments: Sequence[str]) -> int:
    """Let Hydra's launcher run all cells. Each cell's record says how it ended, so a failed one stops nothing."""
    import hydra

    from dcodp.compose import register

    register()
    start = hydra.main(config_path=str(folder("conf")), config_name="config", version_base="1.3")(job)
    before, sys.argv = sys.argv, ["dcodp run", *arguments]  # where Hydra reads them
    try:
        start()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def job(composed: DictConfig) -> int:
    """One cell, as Hydra's launchers call it; never raises, so that the other cells of a sweep go on. Launchers that
    start processes send its name, so it is a plain function of a module that every worker can import."""
    from dcodp.compose import to_config

    return attempt(to_config(composed))


def attempt(config: Config) -> int:
    """Run one cell. A failure is one line here, and in full in the cell's log.txt; returns the exit status."""
    from dcodp.pipeline import run_cell
    from dcodp.progress import set_up_logging
    from dcodp.records import one_line
    from dcodp.workers.work import terminable

    set_up_logging()
    try:
        with terminable():
            run_cell(config)
    except Exception as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0
