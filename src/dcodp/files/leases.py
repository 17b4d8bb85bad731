"""Who may write into a folder: leases that hold on network file systems too, where locks of the kernel may not.

A lease is filelock's SoftFileLease: a small file that appears whole or not at all and names its holder (machine,
process, that process' start, a token). The holder touches it every BEAT_S seconds. Who waits looks whether it changes,
by his own monotonic clock: what the clocks of two machines say, and whether one of them jumps, does not matter. A
holder whose process is gone from this machine, or that left its file unchanged for LEASE_S seconds, has lost the
lease: somebody else takes it over and says so. If it was only asleep, its next write is refused (`require_held`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dcodp.errors import InputError
from dcodp.files.refused import unwritable

if TYPE_CHECKING:
    from filelock import SoftFileLease

log = logging.getLogger(__name__)
NAME = ".lease"
PART = ".part"  # how the names of files end that are being written
LEASE_S = 120.0
BEAT_S = 20.0  # with a cache of file attributes (60 s by default in NFS) two beats may be missed
POLL_S = 0.25


class Busy(Exception):
    """Somebody else holds the lease; `owner` says who."""

    def __init__(self, owner: str):
        super().__init__(f"held by {owner}")
        self.owner = owner


@dataclass
class _Held:
    lease: SoftFileLease
    token: str


_held: dict[str, list[_Held]] = {}  # folder → the leases on it that this process holds


@contextlib.contextmanager
def leased(
    folder: Path, what: str, wait: bool = True, marker: Path | None = None, setting: str = "paths.results"
) -> Iterator[None]:
    """Holds `folder`, which is created, for this process alone; `what` names it to a person.

    Files that a killed holder left half written are removed. With `marker` the lease is that file, and the folder is
    shared with others: nothing is removed or refused. Raises Busy where somebody else holds it and `wait` is off, and
    InputError where the disk is full or the folder, which `setting` names, cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lease = _acquired(marker or folder / NAME, what, wait)
    except OSError as error:
        raise unwritable(folder, error, setting) from error
    assert lease.token is not None
    held = _held.setdefault(os.path.abspath(folder), []) if marker is None else []
    held.append(_Held(lease, lease.token))
    try:
        if marker is None:
            _remove_parts(folder)
        yield
    finally:
        held.pop()
        lease.release()


def _acquired(path: Path, what: str, wait: bool) -> SoftFileLease:
    from filelock import SoftFileLease, Timeout

    lease = SoftFileLease(path, lease_duration=LEASE_S, heartbeat_interval=BEAT_S, thread_local=False)
    told: str | None = None
    while True:
        before = owner(path)
        try:
            lease.acquire(timeout=0)
        except Timeout:
            now = owner(path) or before or "somebody"
            if not wait:
                raise Busy(now) from None
            if now != told:
                log.info("waiting for %s, which holds %s", now, what)
                told = now
            time.sleep(POLL_S)
            continue
        if before is not None:
            log.warning("%s was held by %s, which is gone; taken over", what, before)
        return lease


def owner(path: Path) -> str | None:
    """ "process 7 on host", the holder that a lease's file names; None where there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = {key: value for key, _, value in (line.partition("=") for line in text.splitlines())}
    return f"process {fields.get('pid', '?')} on {fields.get('host', '?').partition('?')[0]}"  # ?…: of its container


def require_held(path: Path) -> None:
    """Raises InputError where `path` lies in a folder that this process has held and lost to somebody else."""
    if not _held:
        return
    place = os.path.abspath(path)
    for folder, leases in _held.items():
        if leases and place.startswith(folder + os.sep) and not _is_ours(leases[-1]):
            who = owner(Path(leases[-1].lease.lock_file)) or "another process"
            raise InputError(
                f"{path} was not written: {who} has taken {folder} over, since this process did not show up for "
                f"{LEASE_S:.0f} s; nothing is lost, run again if that one stops"
            )


def _is_ours(held: _Held) -> bool:
    """Whether the lease's file still has our token; who judges a lease may move it aside for a moment."""
    for pause in (0.0, 0.1, 0.5):
        time.sleep(pause)
        with contextlib.suppress(OSError):
            if f"token={held.token}" in Path(held.lease.lock_file).read_text(encoding="ascii", errors="replace"):
                return True
    return False


def _remove_parts(folder: Path) -> None:
    for part in folder.rglob(f".*{PART}"):
        with contextlib.suppress(OSError):
            part.unlink()


def file_system_now(folder: Path) -> float:
    """Seconds by the clock that the times of files in `folder` follow: that of the machine which serves them. Ours
    where nothing can be written there."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".now-") as probe:
            probe.write(b"now")
            probe.flush()
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()
