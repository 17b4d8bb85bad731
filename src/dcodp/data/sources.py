"""Where published data sets come from: conf/sources.yaml as typed values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from dcodp.errors import InputError


@dataclass(frozen=True)
class Archive:
    """One file to download; `addresses` are tried in order. Without md5 and sha256 its size has to do; without a size
    too, as where it is packed anew for each download, what its folder holds is checked."""

    file: str
    bytes: int | None
    addresses: tuple[str, ...]
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Folder:
    """A folder that one or several archives make up together."""

    path: str
    into: str  # where it comes to lie, within the data folder
    archives: tuple[Archive, ...]
    holds: tuple[str, ...] = ()  # files in it that tell it from a part of it
    packed: str | None = None  # what the archives call it; None: as it is called here
    classes: tuple[str, ...] = ()  # it comes in VOC's layout and is turned into Ultralytics' one, of these classes
    content: str | None = None  # `dcodp.data.conversion.content` of it

    def place(self, data: Path) -> Path:
        return data / self.into / self.path


def read_sources(file: Path) -> dict[str, tuple[Folder, ...]]:
    """Data set → its folders. Raises InputError naming the file and what in it cannot be used."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {name: _folders(entry) for name, entry in tree.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read ({' '.join(str(error).split())}); restore it") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file} is not understood ({type(error).__name__}: {error}); restore it") from error


def _folders(entry: dict[str, Any]) -> tuple[Folder, ...]:
    into = _inside(entry["into"])
    return tuple(_folder(path, into, f) for path, f in entry["folders"].items())


def _folder(path: str, into: str, entry: dict[str, Any]) -> Folder:
    lists = {key: tuple(entry.get(key, ())) for key in ("holds", "classes")}
    archives = tuple(map(_archive, entry["archives"]))
    folder = Folder(_inside(path), into, **{**entry, **lists, "archives": archives})
    _inside(folder.packed or "")
    _require_digits("content", folder.content, 64, path)
    if folder.content is None and any(archive.bytes is None for archive in archives):
        raise ValueError(f"{path} needs content, or bytes of each archive")
    return folder


def _archive(entry: dict[str, Any]) -> Archive:
    size = entry.get("bytes")
    sized = {"bytes": None if size is None else int(size), "addresses": tuple(entry["addresses"])}
    archive = Archive(**{**entry, **sized})
    if PurePosixPath(archive.file).name != archive.file:
        raise ValueError(f"{archive.file} is not a plain file name")
    for name, digits in (("md5", 32), ("sha256", 64)):
        _require_digits(name, getattr(archive, name), digits, archive.file)
    if not archive.addresses or not all(a.startswith(("http://", "https://")) for a in archive.addresses):
        raise ValueError(f"{archive.file} needs addresses that begin with http:// or https://")
    return archive


def _require_digits(name: str, value: str | None, digits: int, file: str) -> None:
    if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", str(value)):
        raise ValueError(f"{name} {value} of {file} is not {digits} hexadecimal digits; put it in quotes")


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{path} leads out of the data folder")
    return path
