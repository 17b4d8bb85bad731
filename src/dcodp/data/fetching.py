"""From a published data set's name to its folders: download or take from a folder, verify, unpack, put in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dcodp.data.archives import unpack
from dcodp.data.conversion import content, to_ultralytics
from dcodp.data.download import download, verify
from dcodp.data.sources import Archive, Folder
from dcodp.errors import InputError
from dcodp.files import Busy, leased

Say = Callable[[str], None]


def fetch(folders: Sequence[Folder], data: Path, source: Path | None, keep: bool, say: Say) -> None:
    """Brings all `folders` into the folder `data`; what is there already is left alone.

    Archives are taken from the folder `source`, without network, or downloaded into data/downloads and deleted after
    use unless `keep`. A folder is unpacked beside its place and renamed at the end: it is whole or not there.
    Raises InputError for whatever stands in the way; what has been downloaded stays.
    """
    try:
        with leased(data, "the data", wait=False, marker=data / ".fetch.lock", setting="--data"):
            for folder in folders:
                _bring(folder, data, source, keep, say)
    except Busy as busy:
        raise InputError(f"another fetch ({busy.owner}) is at work in {data}; wait for it") from None
    except OSError as error:
        raise InputError(f"{data} cannot be written ({error}); make room or choose another folder") from error


def _bring(folder: Folder, data: Path, source: Path | None, keep: bool, say: Say) -> None:
    place = folder.place(data)
    if place.exists():
        if lacking := _lacking(folder, place):
            raise InputError(f"{place} is there, but lacks {lacking}; move it away and fetch it again")
        say(f"{place} is there already")
        return
    archives = [_archive(archive, data, source, say) for archive in folder.archives]
    _unpack(folder, archives, data)
    say(f"{place} is complete")
    for archive in archives:
        if source is None and not keep:
            archive.unlink()


def _lacking(folder: Folder, place: Path) -> str | None:
    """The first of the files that tell the whole folder from a part of it which is not there."""
    return next((name for name in folder.holds if not (place / name).is_file()), None)


def _archive(archive: Archive, data: Path, source: Path | None, say: Say) -> Path:
    """A verified file."""
    if source is None:
        path = download(archive, data / "downloads", say)
    else:
        path = source / archive.file
        if not path.is_file():
            raise InputError(f"{path} does not exist; put it there, from {' or '.join(archive.addresses)}")
        verify(path, archive, "replace it")
    checked = " and ".join(name for name in ("md5", "sha256") if getattr(archive, name))
    if checked or archive.bytes is not None:
        say(f"{path} is verified by its {checked or 'size'}")
    return path


def _unpack(folder: Folder, archives: Sequence[Path], data: Path) -> None:
    """All archives into one folder beside the place, then the part that is asked for into the place."""
    partial = data / ".unpacking"
    shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was killed
    partial.mkdir()
    try:
        for archive in archives:
            unpack(archive, partial)
        made, place = _made(folder, archives, partial), folder.place(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(made, place)
    finally:
        shutil.rmtree(partial)


def _made(folder: Folder, archives: Sequence[Path], unpacked: Path) -> Path:
    """The folder among what was unpacked, in the layout that is asked for, and verified."""
    named, packed = ", ".join(map(str, archives)), folder.packed or folder.path
    made = unpacked / packed
    if not made.is_dir():
        raise InputError(f"{named} do not hold {packed}; check conf/sources.yaml")
    if folder.classes:
        turned = unpacked / ".turned"
        to_ultralytics(made, turned, folder.classes)
        made = turned
    if lacking := _lacking(folder, made):
        raise InputError(f"{named} do not hold {packed}/{lacking}; check conf/sources.yaml")
    if folder.content is not None and (found := content(made)) != folder.content:
        raise InputError(f"{named} hold other images or boxes than were published ({found}); delete and fetch again")
    return made
