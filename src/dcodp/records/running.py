"""Who is at work on a run, how far it is, and how others can see whether it still is.

running.json names the process that holds the run's lease (dcodp.files.leases); the lease's file is its heartbeat.
progress.json tells how far it has come. Both are there only while a process works on the run.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import Busy, leased, write_atomically
from dcodp.files.leases import LEASE_S, file_system_now, require_held
from dcodp.records.folder import RunFolder


def process_start(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None where no such process is alive."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]  # state; start time in clock ticks since boot
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # alive, and somebody else's
    return "unknown"


def _here() -> str:
    """The machine, and which of its containers: where a process number means the same process."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def read_running(folder: RunFolder) -> dict[str, Any] | None:
    """{pid, host, started, process_start, …} of the process at work, None where there is no such (whole) file."""
    return _mapping(folder.running)


def read_progress(folder: RunFolder) -> dict[str, Any] | None:
    """{stage, stages_done, stages, device} and of a training {epoch, epochs, seconds: of the last epoch}; None where
    nothing was told."""
    return _mapping(folder.progress)


def _mapping(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_alive(folder: RunFolder) -> bool:
    """Whether a process is at work: on this host the process itself is looked up, elsewhere its heartbeat decides, by
    the clock of the file system."""
    info = read_running(folder)
    if info is None:
        return False
    if info.get("here", info.get("host")) in (_here(), socket.gethostname()) and isinstance(info.get("pid"), int):
        start = process_start(info["pid"])
        return start is not None and start == info.get("process_start")
    with contextlib.suppress(FileNotFoundError):  # it ended between the two looks
        return file_system_now(folder.path) - folder.lease.stat().st_mtime < LEASE_S
    return False


@contextlib.contextmanager
def claim(folder: RunFolder, wait: bool = False) -> Iterator[None]:
    """Holds the run for this process alone while it works, or waits until it can.

    Raises InputError where another process holds it and `wait` is off.
    """
    try:
        with leased(folder.path, f"run {folder.run_id}", wait):
            me = {"pid": os.getpid(), "host": socket.gethostname(), "here": _here(), "started": now()}
            write_atomically(folder.running, json.dumps({**me, "process_start": process_start(os.getpid())}))
            try:
                yield
            finally:
                with contextlib.suppress(InputError):  # who has taken over has notes of his own
                    require_held(folder.running)
                    folder.running.unlink(missing_ok=True)
                    folder.progress.unlink(missing_ok=True)
    except Busy as busy:
        raise InputError(f"run {folder.run_id} is being computed by {busy.owner}; wait for it or stop it") from None


def tell_progress(path: Path, told: Mapping[str, Any]) -> None:
    """progress.json for those who watch; that it cannot be written stops nothing."""
    with contextlib.suppress(InputError):
        write_atomically(path, json.dumps(told))


def now() -> str:
    """This second, local time with its offset (ISO 8601)."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
