"""What a worker does with a job, wherever it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from dcodp.config import Config
from dcodp.errors import InputError
from dcodp.records import Record, claim, is_done, keeping, one_line, read_record, run_folder, shared_folder
from dcodp.workers.jobs import Job


def do(job: Job, *before: int) -> int:
    """The job, from start or from where it was left; returns the exit status. Never raises but when it is stopped, so
    that the other jobs go on: each job's record says how it ended. `before` (the statuses of those it comes after) is
    for launchers that order jobs by what they return."""
    from dcodp.progress import set_up_logging

    try:
        _enter(job.folder)
        set_up_logging()
        with terminable():
            _do(job)
    except Exception as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _enter(folder: str) -> None:
    """Relative paths mean here what they mean where the sweep was started."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder}, where the sweep was started, is not on {socket.gethostname()} ({error.strerror}); share that "
            "folder, or start the sweep in one that all workers have"
        ) from error


def _do(job: Job) -> None:
    from dcodp import own
    from dcodp.pipeline import prepare, run_cell

    own.use(job.configs[0].paths.own)
    if job.kind != "cell":
        prepare(job.configs, job.kind, job.name, job.launch)
    elif reason := _lacks(job):
        _give_up(job.configs[0], job.name, reason)
    else:
        run_cell(job.configs[0], wait=True)


def _lacks(job: Job) -> str | None:
    """Why what this job builds on could not be computed a moment ago; to try it again in each cell is of no use."""
    for name in job.after:
        folder = shared_folder(Path(job.configs[0].paths.results), name)
        with contextlib.suppress(InputError):
            record = read_record(folder)
            if record.status == "failed" and record.provenance.get("launch") == job.launch:
                return f"{name}, which it shares with other cells, failed: {record.error}"
    return None


def _give_up(config: Config, name: str, reason: str) -> None:
    """A record of the cell says why it was not started."""
    from dcodp.config import to_dict

    folder = run_folder(Path(config.paths.results), name)
    with claim(folder, wait=True):
        if not is_done(folder):
            with keeping(folder, Record(name, config=to_dict(config))):
                raise InputError(reason)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the work in order: the record says interrupted, leases are given back, checkpoints are whole. A
    handler of the launcher's own (submitit's) stays."""
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
