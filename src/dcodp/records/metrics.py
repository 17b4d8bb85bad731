"""metrics.jsonl: one line per epoch, whole lines only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from dcodp.errors import InputError
from dcodp.files import unwritable
from dcodp.files.leases import require_held
from dcodp.records.folder import RunFolder
from dcodp.records.record import plain


def append_metrics(folder: RunFolder, row: Mapping[str, Any]) -> None:
    """One epoch to metrics.jsonl; a line torn by a kill or a full disk is cut off, whole lines are never lost."""
    require_held(folder.metrics)
    line = (json.dumps(plain(row, []), allow_nan=False) + "\n").encode()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.metrics.open("ab+") as stream:
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
            stream.truncate(whole)
            try:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(folder.metrics, whole)
                raise
    except OSError as error:
        raise unwritable(folder.metrics, error) from error


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The epochs so far; a last line that a kill has torn is not one. Raises InputError for a damaged file."""
    if not folder.metrics.exists():
        return []
    lines = folder.metrics.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{folder.metrics} is damaged ({error}); delete it and run the cell again") from None
