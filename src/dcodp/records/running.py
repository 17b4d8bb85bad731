"""Who is at work on a run: a lock, a note of the process, and a heartbeat that others can see."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from dcodp.errors import InputError
from dcodp.files import unwritable, write_atomically
from dcodp.records.folder import RunFolder

HEARTBEAT_S = 20.0
STALE_S = 300.0  # a process on another host that has not beaten for so long is taken for dead


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


def read_running(folder: RunFolder) -> dict[str, Any] | None:
    """{pid, host, started, process_start} of the process at work, None where there is no such (whole) file."""
    try:
        content = json.loads(folder.running.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def is_alive(folder: RunFolder) -> bool:
    """Whether a process is at work: on this host the process itself is looked up, elsewhere its heartbeat decides."""
    info = read_running(folder)
    if info is None:
        return False
    if info.get("host") == socket.gethostname() and os.name == "posix" and isinstance(info.get("pid"), int):
        start = process_start(info["pid"])
        return start is not None and start == info.get("process_start")
    with contextlib.suppress(FileNotFoundError):  # it ended between the two looks
        return time.time() - folder.running.stat().st_mtime < STALE_S
    return False


@contextlib.contextmanager
def claim(folder: RunFolder) -> Iterator[None]:
    """Holds the run for this process alone and beats while it works; the operating system frees a killed one's lock.

    Raises InputError where another process holds it.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.path / ".lock", timeout=0)
        lock.acquire()
    except filelock.Timeout:
        owner = read_running(folder) or {}
        who = f"process {owner.get('pid', '?')} on {owner.get('host', 'another host')}"
        raise InputError(f"run {folder.run_id} is being computed by {who}; wait for it or stop it") from None
    except OSError as error:
        raise unwritable(folder.path, error) from error
    stop = threading.Event()
    try:
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started": now(), "process_start": None}
        write_atomically(folder.running, json.dumps({**me, "process_start": process_start(os.getpid())}))
        threading.Thread(target=_beat, args=(folder.running, stop), daemon=True).start()
        yield
    finally:
        stop.set()
        folder.running.unlink(missing_ok=True)
        lock.release()


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):  # a missed beat does no harm: the next one comes
            os.utime(path)


def now() -> str:
    """This second, local time with its offset (ISO 8601)."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
