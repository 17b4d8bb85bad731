"""launcher=NAME, as Hydra composed it, and the sweep that it is to run."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

from dcodp.config import Config, splits
from dcodp.files import digest
from dcodp.workers.jobs import Job, jobs_of
from dcodp.workers.work import terminable

log = logging.getLogger(__name__)
TARGET = "_target_"
RUNNERS = {  # the launcher in Hydra's terms → the module that does its work, in an order
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": "serial",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": "pool",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": "slurm",
    "dcodp.workers.cluster": "cluster",
}


@dataclass
class RayConfig:
    """hydra.launcher of launcher=ray."""

    _target_: str = "dcodp.workers.cluster"
    address: str | None = None  # of a cluster that runs ("auto": the one of this machine); None: start one here
    num_cpus: float = 1.0  # for each cell
    num_gpus: float | None = None  # for each cell; None: as many as `devices`, where the cluster has GPUs
    max_retries: int = 3  # of a cell whose worker vanishes


def slurm_config() -> type:
    """hydra.launcher of launcher=slurm: what Hydra's submitit launcher knows, and how many cells one job does."""
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

    return make_dataclass("SlurmConfig", [("cells_per_job", int, 1)], bases=(SlurmQueueConf,))


def knows(settings: Mapping[str, Any]) -> bool:
    """Whether this is one of our launchers; any other is left to Hydra, which knows no order."""
    return settings.get(TARGET) in RUNNERS


def run_sweep(cells: Sequence[Config], settings: Mapping[str, Any]) -> dict[str, int]:
    """Every cell on the launcher's workers, what they share first; the exit status of each job by its name.

    Raises InputError, before the first job, for data that are not there and for a launcher that cannot work.
    """
    _require_data(cells)
    jobs = jobs_of(cells)
    _say(jobs)
    runner = importlib.import_module(f"dcodp.workers.{RUNNERS[settings[TARGET]]}")
    with terminable():
        return runner.run(jobs, {key: value for key, value in settings.items() if key != TARGET})


def _require_data(cells: Sequence[Config]) -> None:
    """What the cells read is there; data that are generated are generated now, not by all workers at once."""
    from dcodp.data.splits import open_split

    for config in {digest([vars(cell.dataset), cell.paths.data]): cell for cell in cells}.values():
        for split in splits(config.dataset):
            open_split(config.dataset, Path(config.paths.data), split)


def _say(jobs: Sequence[Job]) -> None:
    ahead = [job for job in jobs if job.kind != "cell"]
    if ahead:
        dense = sum(job.kind == "dense" for job in ahead)
        log.info("%d cells; first what they share: %d dense nets, %d sets of scores", len(jobs) - len(ahead), dense,
                 len(ahead) - dense)  # fmt: skip
