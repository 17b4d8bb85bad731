"""The files of a run by name, and writes that survive a full disk and a pulled plug."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcodp.errors import InputError


@dataclass(frozen=True)
class RunFolder:
    """The files of one run by name; nothing is created before something is written."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def running(self) -> Path:
        return self.path / "running.json"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.png"

    @property
    def mirrored(self) -> Path:
        return self.path / "wandb.json"


def run_folder(results: Path, run_id: str) -> RunFolder:
    return RunFolder(Path(results) / "runs" / run_id)


def unwritable(path: Path, error: OSError) -> InputError:
    """The one line for a full disk, a read-only folder and their like."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"the disk is full: {path} was not written (what it held is kept); free space and run again")
    return InputError(f"cannot write {path} ({error.strerror}); choose a writable folder with paths.results")


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file holds either what it held or all of `content`, whenever the machine stops.

    Raises InputError where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is missing
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run the cell again") from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    except ValueError as error:  # JSON and UTF-8 decoding
        raise InputError(f"{path} is not whole JSON ({error}); delete its folder and run the cell again") from None
