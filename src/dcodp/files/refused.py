"""What is said where the system refuses to write."""

from __future__ import annotations

import errno
from pathlib import Path

from dcodp.errors import InputError


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unwritable(path: Path, error: OSError) -> InputError:
    """The one line for a full disk, a read-only folder and their like."""
    if is_full(error):
        return InputError(f"the disk is full: {path} was not written (what it held is kept); free space and run again")
    return InputError(f"cannot write {path} ({error.strerror}); choose a writable folder with paths.results")
