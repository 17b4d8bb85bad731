"""launcher=serial: one job after the other in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dcodp.workers.jobs import Job
from dcodp.workers.work import do


def run(jobs: Sequence[Job], settings: Mapping[str, Any]) -> dict[str, int]:
    """name → exit status."""
    return {job.name: do(job) for job in jobs}
