"""Run one cell, or with -m a sweep: python run.py [-m] key=value …  (keys and choices: python run.py --help)."""

import os
import sys
from pathlib import Path

# Threads that wait must not spin: with another process on the same cores that slows both about tenfold. OpenMP reads
# this when it is loaded, so it comes before everything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hydra
from omegaconf import DictConfig

from dcodp.compose import cells, register, to_config
from dcodp.config import Config
from dcodp.errors import InputError
from dcodp.records import one_line

ROOT = Path(__file__).resolve().parent
CONF = ROOT / "conf"
register()


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> int:
    """One cell, as Hydra's launchers call it; never raises, so that the other cells of a sweep go on."""
    return attempt(to_config(composed))


def attempt(config: Config) -> int:
    """Run one cell. A failure is one line here, and in full in the cell's log.txt; returns the exit status."""
    from dcodp.pipeline import run_cell
    from dcodp.show import set_up_logging

    set_up_logging()
    try:
        run_cell(config)
    except Exception as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def main(arguments: list[str]) -> int:
    """Checks every cell first, computes those that are not there, then shows the table. Returns the exit status."""
    flags = [a for a in arguments if a.startswith("-")]
    if any(flag not in ("-m", "--multirun") for flag in flags):  # --help, --cfg, --info …: Hydra's own
        job()
        return 0
    from dcodp.show import announce, show

    try:
        asked = cells(CONF, [a for a in arguments if not a.startswith("-")])
        if len(asked) > 1 and not flags:
            raise InputError(f"{len(asked)} cells were asked for; add -m to run a sweep")
        status = 0
        if announce(asked):
            status = attempt(asked[0][1]) if len(asked) == 1 else launch()
        return status or show([config for _, config in asked], ROOT / "experiments")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def launch() -> int:
    """Let Hydra's launcher run all cells. Each cell's record says how it ended, so a failed one stops nothing."""
    try:
        job()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
