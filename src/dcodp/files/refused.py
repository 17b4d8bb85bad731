"""What is said where the system refuses to write."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from dcodp.errors import InputError

MORE = 1 << 20  # bytes: who fails for want of room may have given some of it back


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unwritable(path: Path, error: OSError, setting: str = "paths.results or --out") -> InputError:
    """The one line for a full disk, a read-only folder and their like; `setting` is where another one is named."""
    if is_full(error):
        return InputError(f"the disk is full: {path} was not written (what it held is kept); free space and run again")
    return InputError(f"cannot write {path} ({error.strerror}); choose a writable folder with {setting}")


def refusal(folder: Path) -> OSError | None:
    """What the system says when more is written into the folder; None where it takes it, or where there is no such
    folder. For failures of libraries that write there by themselves, and say of a full disk what they like."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            left = MORE
            while left > 0:
                left -= probe.write(b"\xff" * left)
            os.fsync(probe.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    return None
