"""Short stable hashes of content: of settings, and of files."""

from __future__ import annotations

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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
