"""launcher=joblib: processes of this machine, each with a GPU of its own if there are GPUs (dcodp.devices).

joblib's loky gives up on all of its processes when one vanishes; what they were at is then given to new ones, and goes
on from its checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from dcodp.workers.jobs import Job
from dcodp.workers.work import do

log = logging.getLogger(__name__)
ATTEMPTS = 3  # at a job whose worker vanishes
IDLE_S = 300  # after which a process without work goes
LOST = 137  # the exit status of a process that was killed


def run(jobs: Sequence[Job], settings: Mapping[str, Any]) -> dict[str, int]:
    """name → exit status. Of settings `n_jobs` counts: how many processes, -1 for one per core."""
    return _Pool(jobs, _processes(settings.get("n_jobs") or 1)).run()


def _processes(asked: int) -> int:
    from joblib import effective_n_jobs

    return effective_n_jobs(asked)


class _Pool:
    """Jobs that wait, that run and that ended."""

    def __init__(self, jobs: Sequence[Job], processes: int):
        self.waiting = {job.name: job for job in jobs}
        self.processes = processes
        self.running: dict[Future[int], Job] = {}
        self.ended: dict[str, int] = {}
        self.attempts: dict[str, int] = {}

    def run(self) -> dict[str, int]:
        try:
            while self.waiting or self.running:
                self._start()
                done, _ = wait(self.running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._end(future)
        finally:
            if self.running:  # stopped: no process goes on by itself
                self._executor().shutdown(kill_workers=True)
        return self.ended

    def _executor(self) -> Any:
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(max_workers=self.processes, timeout=IDLE_S)

    def _start(self) -> None:
        """As many as there are processes for, of those that nothing has to come before any more.

        One whose worker has vanished runs alone, so that no other is lost with it again.
        """
        executor = self._executor()
        for job in list(self.waiting.values()):
            if len(self.running) == self.processes or (self.running and self._suspected(job, *self.running.values())):
                return
            if all(name in self.ended for name in job.after):
                self.attempts[job.name] = self.attempts.get(job.name, 0) + 1
                self.running[executor.submit(do, self.waiting.pop(job.name))] = job

    def _suspected(self, waiting: Job, *running: Job) -> bool:
        """Whether one of these has to run alone."""
        return waiting.name in self.attempts or any(self.attempts[job.name] > 1 for job in running)

    def _end(self, future: Future[int]) -> None:
        job = self.running.pop(future)
        try:
            self.ended[job.name] = future.result()
        except SystemExit as stopped:  # by SIGTERM: its record says interrupted
            self.ended[job.name] = int(stopped.code or 1)
        except BrokenProcessPool:
            again = self.attempts[job.name] < ATTEMPTS
            log.warning("the worker of %s vanished%s", job.name, "; it is started again" if again else "")
            if again:
                self.waiting = {job.name: job, **self.waiting}
            else:
                self.ended[job.name] = LOST
