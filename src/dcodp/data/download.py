"""Downloads that go on where they stopped, and the check of what arrived.

What has arrived lies in <file>.part and is only ever appended to, so an interrupt, a dropped connection or a full
disk costs nothing: the next attempt asks for the rest (HTTP Range, RFC 9110 section 14). Only a file of the right size
and checksum gets its name. A file whose size nobody knows is packed anew each time, so it begins anew, too.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dcodp.data.sources import Archive
from dcodp.errors import InputError

TIMEOUT_S = 30.0
PAUSE_S = 2.0  # before a second attempt; doubled for each further one that brought nothing
ATTEMPTS = 5  # in a row that bring nothing, at one address
CHUNK = 1 << 20  # bytes

Advance = Callable[[int], None]  # told how many bytes are there


class _Refused(Exception):
    """This address has something else, or nothing; asking again does not help."""


def download(archive: Archive, folder: Path, say: Callable[[str], None]) -> Path:
    """The archive at folder/<file>, whole and verified; what is there already is not loaded again.

    Raises InputError where no address delivers it, the disk is full, or the checksum is wrong (then what arrived is
    deleted, as going on with it is pointless).
    """
    finished, part = folder / archive.file, folder / f"{archive.file}.part"
    if finished.exists():
        verify(finished, archive, "delete it, so that it is loaded anew")
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    if part.exists() and (archive.bytes is None or part.stat().st_size > archive.bytes):
        part.unlink()
    if archive.bytes is not None:
        _make_sure_of_room(part, archive.bytes)
    if archive.bytes is None or _size(part) < archive.bytes:
        _from_any_address(archive, part, say)
    try:
        verify(part, archive, "it was deleted, and the next attempt begins anew")
    except InputError:
        part.unlink()
        raise
    return part.rename(finished)


def verify(path: Path, archive: Archive, remedy: str) -> None:
    """Raises InputError where the file has not the size and the checksum that the archive should have."""
    if archive.bytes is not None and (size := path.stat().st_size) != archive.bytes:
        raise InputError(f"{path} is not {archive.file}: it has {size:,} bytes, not {archive.bytes:,}; {remedy}")
    for name in ("md5", "sha256"):
        wanted = getattr(archive, name)
        if wanted is not None and (found := _digest(path, name)) != wanted:
            raise InputError(f"{path} is not {archive.file}: its {name} is {found}, not {wanted}; {remedy}")


def _digest(path: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as stream, _bar(f"verifying {path.name}", path.stat().st_size) as advance:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            advance(stream.tell())
    return digest.hexdigest()


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _make_sure_of_room(part: Path, total: int) -> None:
    free, needed = shutil.disk_usage(part.parent).free, total - _size(part)
    if free < needed:
        room = f"{free / 1e9:.1f} GB left, {part.stem} needs {needed / 1e9:.1f} GB"
        raise InputError(f"{part.parent} has {room}; make room and try again")


def _from_any_address(archive: Archive, part: Path, say: Callable[[str], None]) -> None:
    reasons = []
    with _bar(archive.file, archive.bytes, _size(part)) as advance:
        for address in archive.addresses:
            try:
                return _from(address, part, archive.bytes, advance, say)
            except _Refused as error:
                reasons.append(f"{address}: {error}")
                say(reasons[-1])
    kept = "the same command begins anew"
    if archive.bytes is not None:
        kept = f"{_size(part):,} of {archive.bytes:,} bytes are kept and the same command goes on from there"
    raise InputError(f"{archive.file} did not arrive ({'; '.join(reasons)}); {kept}, or give its folder with --from")


def _from(address: str, part: Path, total: int | None, advance: Advance, say: Callable[[str], None]) -> None:
    """Connects again and again until everything is there, or until nothing more comes."""
    idle = 0
    while True:
        before = _size(part)
        try:
            return _connect(address, part, total, advance)
        except (OSError, http.client.HTTPException) as error:
            idle = 0 if total is not None and _size(part) > before else idle + 1
            if idle == ATTEMPTS:
                raise _Refused(f"gave up after {ATTEMPTS} attempts ({_reason(error)})") from error
            so_far = f"{_size(part):,} bytes; beginning anew"
            if total is not None:
                so_far = f"{_size(part):,} of {total:,} bytes; going on"
            say(f"{address}: {_reason(error)} after {so_far}")
            time.sleep(PAUSE_S * 2 ** (idle - 1) if idle else 0)


def _connect(address: str, part: Path, total: int | None, advance: Advance) -> None:
    """One connection: appends what it brings. OSError or HTTPException where it ends too early."""
    headers = {"User-Agent": "dcodp", "Accept-Encoding": "identity"}
    have = _size(part) if total is not None else 0
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as answer:
            if _begins(answer, have, total) == 0:
                part.write_bytes(b"")
            while chunk := answer.read1(CHUNK):
                _append(part, chunk)
                advance(_size(part))
                if total is not None and _size(part) > total:
                    part.unlink()
                    raise _Refused(f"sends more than {total:,} bytes")
            cut_off = answer.length or _size(part) < (total or 0)  # what the answer still owes
    except urllib.error.HTTPError as error:
        if error.code < 500 and error.code not in (408, 429):
            raise _Refused(f"answers {error.code} {error.reason}") from error
        raise
    if cut_off:
        raise ConnectionError("the connection ended")


def _begins(answer: http.client.HTTPResponse, have: int, total: int | None) -> int:
    """The place in the file of the first byte that this answer brings: `have`, or 0 where Range is ignored."""
    if total is None:
        return 0
    if answer.status == 206:
        said = f"{answer.headers.get('Content-Range')}"
        if said != f"bytes {have}-{total - 1}/{total}":
            raise _Refused(f"answers with {said} where bytes {have}-{total - 1}/{total} were asked for")
        return have
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(total):
        raise _Refused(f"answers with {length} bytes instead of {total:,}")
    return 0


def _append(part: Path, chunk: bytes) -> None:
    try:
        with part.open("ab") as stream:
            stream.write(chunk)
    except OSError as error:
        raise InputError(
            f"{part} cannot be written ({error.strerror}); make room and run the same command, it goes on from there"
        ) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__


@contextmanager
def _bar(description: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """A bar in bytes, or how many there are, on the terminal's error stream; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    speed = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *speed, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda done: progress.update(task, completed=done)
