"""Short stable hashes of content: of settings, and of files."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from dcodp.errors import InputError


def digest(tree: Any) -> str:
    """A short stable hash of JSON-able content."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def file_digest(path: Path, what: str = "a weights file") -> str:
    """A hash of a file's bytes. Raises InputError where there is no such file."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of {what}")
    now = path.stat()
    return _digest_of(path.resolve(), now.st_mtime_ns, now.st_size)


@functools.lru_cache(maxsize=256)
def _digest_of(path: Path, changed: int, size: int) -> str:
    """Read again only where the file has changed: thousands of cells may name the same one."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
