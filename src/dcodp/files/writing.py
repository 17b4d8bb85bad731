"""Writes that survive a full disk and a pulled plug, and reads that say what is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dcodp.errors import InputError
from dcodp.files.leases import PART, require_held
from dcodp.files.refused import refusal, unwritable


class _Raw(io.FileIO):
    """A file that remembers what the system refused to write; libraries tell of it in words of their own (torch by a
    RuntimeError about a position), or not at all."""

    refused: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.refused = error
            raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the file's place at the end: whenever the machine stops, the file holds either what
    it held or all that was written.

    Raises InputError where the disk is full, whatever was made of that by who wrote, where the folder cannot be
    written, or where another process has taken it over.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")  # as no other machine names its own
    raw: _Raw | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = _Raw(temporary, "wb")
        with io.BufferedWriter(raw) as stream:
            yield stream
            stream.flush()
            if raw.refused:
                raise raw.refused
            os.fsync(stream.fileno())
        require_held(path)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is missing
            temporary.unlink(missing_ok=True)
        refused = error if isinstance(error, OSError) else raw and raw.refused
        if refused and isinstance(error, Exception):
            raise unwritable(path, refused) from error
        raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder that takes the place of the one at `path` at the end, with what was written into it; after an
    error there is what was there.

    Raises InputError where the disk is full, also where who wrote says something else of it, or the folder cannot be
    written.
    """
    mark = f"{path.name}.{os.getpid()}-{threading.get_ident()}"
    new, old = path.with_name(f".{mark}.new"), path.with_name(f".{mark}.old")
    try:
        new.mkdir(parents=True)
        yield new
        if path.exists():  # folders do not replace each other in one step
            os.replace(path, old)
        os.replace(new, path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        refused = error if isinstance(error, OSError) else refusal(new)
        shutil.rmtree(new, ignore_errors=True)
        if old.exists() and not path.exists():
            os.replace(old, path)
        if refused and isinstance(error, Exception):
            raise unwritable(path, refused) from error
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """`replacing` with all of the content at once."""
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def read_json(path: Path) -> Any:
    """Raises InputError, naming the file, where it is absent, unreadable or not whole JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run the cell again") from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    except ValueError as error:  # JSON and UTF-8 decoding
        raise InputError(f"{path} is not whole JSON ({error}); delete its folder and run the cell again") from None
