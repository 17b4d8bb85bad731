"""launcher=slurm: jobs of SLURM through submitit. What a job comes after is a dependency of SLURM's own.

Cells that come after the same job are one array, each element of it `cells_per_job` of them one after the other. At the
time limit SLURM tells a job in time (signal_delay_s before); it is requeued and goes on from its checkpoints, as after
a preemption.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcodp.errors import InputError
from dcodp.files import unwritable
from dcodp.workers.jobs import Job
from dcodp.workers.work import do

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)
POLL_S = 5.0
LOST = 137  # the exit status of a job that left none
OWN = ("submitit_folder", "max_num_timeout", "cells_per_job")  # settings that are not those of submitit's jobs
COMMON = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
          "stderr_to_stdout")  # fmt: skip  # settings that submitit has for all of its executors


class Work:
    """What submitit calls; it is asked for `checkpoint` when the time is over, and puts what that returns in again."""

    def __call__(self, jobs: Sequence[Job]) -> list[int]:
        return [do(job) for job in jobs]

    def checkpoint(self, jobs: Sequence[Job]) -> submitit.helpers.DelayedSubmission:
        import submitit

        names = ", ".join(job.name for job in jobs)
        log.warning("%s: stopped by SLURM and put in again; what is not done goes on from its checkpoints", names)
        return submitit.helpers.DelayedSubmission(self, jobs)


@dataclass(frozen=True)
class Submitted:
    """One of the jobs that SLURM's job does."""

    slurm: submitit.Job[list[int]]
    place: int

    def status(self) -> int:
        """What it returned; LOST where SLURM's job was killed and left nothing."""
        if not self.slurm.paths.result_pickle.exists():
            return LOST
        try:
            return self.slurm.result()[self.place]
        except Exception as error:  # submitit's own failures, and what the job raised
            log.warning("SLURM's job %s: %s", self.slurm.job_id, str(error).strip().splitlines()[-1])
            return 1


def run(jobs: Sequence[Job], settings: Mapping[str, Any]) -> dict[str, int]:
    """name → exit status, when SLURM is through with all of them. `settings` are those of Hydra's submitit launcher.

    Raises InputError where there is no SLURM or it refuses the jobs. Interrupted, it leaves the jobs in SLURM's queue.
    """
    submitted: dict[str, Submitted] = {}
    folder = _folder(settings["submitit_folder"], jobs[0].launch)
    for after, group in groupby(jobs, lambda job: job.after):
        parts = list(_parts(list(group), settings.get("cells_per_job", 1)))
        dependency = ":".join(dict.fromkeys(submitted[name].slurm.job_id for name in after))
        for part, job in zip(parts, _submit(parts, settings, dependency, folder), strict=True):
            submitted |= {one.name: Submitted(job, place) for place, one in enumerate(part)}
    slurms = list({job.slurm.job_id: job.slurm for job in submitted.values()}.values())
    log.info("%d jobs are in SLURM's queue; they go on without this process, dcodp status tells how far", len(slurms))
    _wait(slurms)
    return {name: job.status() for name, job in submitted.items()}


def _parts(jobs: list[Job], cells: int) -> Iterator[tuple[Job, ...]]:
    """What each of SLURM's jobs does: so many cells. What cells share is waited for, and comes alone."""
    if cells < 1:
        raise InputError(f"hydra.launcher.cells_per_job={cells}; give 1 or more")
    for kind, group in groupby(jobs, lambda job: job.kind):
        together = list(group)
        size = cells if kind == "cell" else 1
        yield from (tuple(together[k : k + size]) for k in range(0, len(together), size))


def _folder(asked: str, launch: str) -> Path:
    """Where all jobs of this call have their logs and results, made before the first is submitted.

    SLURM opens the log of a job that starts at once before submitit makes a folder with the job's number in its name,
    and the job fails. Numbers begin anew with a new SLURM, so what an earlier call left lies elsewhere.
    """
    from submitit.core.utils import JobPaths

    folder = JobPaths.get_first_id_independent_folder(asked) / launch
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _submit(
    parts: Sequence[tuple[Job, ...]], settings: Mapping[str, Any], dependency: str, folder: Path
) -> list[submitit.Job[list[int]]]:
    """One job, or an array, that starts when those that it depends on ended, however."""
    import submitit
    from submitit.core.utils import FailedJobError

    given = {key if key in COMMON else f"slurm_{key}": value for key, value in settings.items() if key not in OWN}
    if dependency:
        more = dict(given.get("slurm_additional_parameters") or {})
        given["slurm_additional_parameters"] = {**more, "dependency": f"afterany:{dependency}"}
    try:
        executor = submitit.AutoExecutor(
            folder, cluster="slurm", slurm_max_num_timeout=settings.get("max_num_timeout", 0)
        )
        executor.update_parameters(**given)
        return executor.map_array(Work(), parts)
    except (RuntimeError, OSError, FailedJobError) as error:
        said = " ".join(str(error).split())
        advice = "set hydra.launcher.gpus_per_node=0 if it has no GPUs" if "gres" in said else "see hydra.launcher.*"
        raise InputError(f"SLURM takes no jobs here: {said}; {advice}") from error


def _wait(jobs: Sequence[submitit.Job[list[int]]]) -> None:
    """Until each has left its result, or is not in the queue any more (twice: a job that is put in again is not there
    for a moment). squeue is asked, since sacct is not everywhere."""
    absent: set[str] = set()
    while open_jobs := [job for job in jobs if not job.paths.result_pickle.exists()]:
        queued = _queued()
        gone = {job.job_id for job in open_jobs if queued is not None and job.job_id not in queued}
        if len(gone & absent) == len(open_jobs):
            return
        absent = gone
        time.sleep(POLL_S)


def _queued() -> set[str] | None:
    """The numbers of the jobs that wait or run ("7", "8_0"); None where SLURM does not answer at present."""
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i %F_%K"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(told.stdout.split()) if told.returncode == 0 else None
