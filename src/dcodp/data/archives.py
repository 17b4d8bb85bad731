"""Unpacking tar and zip archives that nobody here has made, so that nothing lands outside the given folder.

All entries are looked at before the first is written: a name that is absolute or climbs, a link and a device refuse
the whole archive. What is written are plain new files and folders with our own permissions, whatever the archive says.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from dcodp.errors import InputError
from dcodp.progress import track, waiting

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_UNIX_LINK, _UNIX_FILE, _UNIX_KIND = 0o120000, 0o100000, 0o170000  # of the mode in a zip entry


@dataclass(frozen=True)
class _Entry:
    name: str
    bytes: int
    kind: str  # "file", "folder" or what it is instead
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path) -> None:
    """Unpacks `archive` into the folder `into`. Zip entries are checked against their CRC while they are read.

    Raises InputError, before anything is written, for an entry that must not be unpacked or where there is no room;
    later where the archive is damaged or the disk is full.
    """
    try:
        with _entries(archive) as entries:
            places = [(entry, into / _vetted(archive, entry)) for entry in entries]
            _make_sure_of_room(archive, sum(entry.bytes for entry in entries), into)
            for entry, place in track(places, f"unpacking {archive.name}"):
                _write(entry, place)
    except _DAMAGED as error:
        raise InputError(f"{archive} is damaged ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked into {into} ({error}); make room there") from error


def _vetted(archive: Path, entry: _Entry) -> PurePosixPath:
    path = PurePosixPath(entry.name)
    climbs = path.is_absolute() or ".." in path.parts or "\\" in entry.name or re.match("[A-Za-z]:", entry.name)
    if climbs or "\0" in entry.name:
        raise InputError(f"{archive} wants to write to {entry.name!r}, outside its folder; do not use this archive")
    if entry.kind not in ("file", "folder"):
        raise InputError(f"{archive} holds {entry.name!r}, which is {entry.kind}; do not use this archive")
    return path


def _make_sure_of_room(archive: Path, needed: int, into: Path) -> None:
    free = shutil.disk_usage(into).free
    if free < needed:
        room = f"{free / 1e9:.1f} GB left, {archive.name} unpacks to {needed / 1e9:.1f} GB"
        raise InputError(f"{into} has {room}; make room and try again")


def _write(entry: _Entry, place: Path) -> None:
    (place if entry.kind == "folder" else place.parent).mkdir(parents=True, exist_ok=True)
    if entry.kind == "file" and (source := entry.open()) is not None:
        with source, place.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)


@contextmanager
def _entries(archive: Path) -> Iterator[list[_Entry]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield [_zip_entry(opened, info) for info in opened.infolist()]
    else:
        with tarfile.open(archive) as opened:
            with waiting(f"reading {archive.name}"):
                members = opened.getmembers()
            yield [_tar_entry(opened, member) for member in members]


def _zip_entry(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    kind = (info.external_attr >> 16) & _UNIX_KIND  # 0 where it was not made on Unix
    other = {_UNIX_LINK: "a link"}.get(kind, "a device")
    plain = "folder" if info.is_dir() else "file" if kind in (0, _UNIX_FILE) else other
    return _Entry(info.filename, info.file_size, plain, lambda: opened.open(info))


def _tar_entry(opened: tarfile.TarFile, member: tarfile.TarInfo) -> _Entry:
    other = "a link" if member.issym() or member.islnk() else "a device"
    plain = "folder" if member.isdir() else "file" if member.isfile() else other
    return _Entry(member.name, member.size if member.isfile() else 0, plain, lambda: opened.extractfile(member))
