"""The repairs by name: `methods/NAME.py` holds the repair NAME as its `REPAIR`.

A new one takes that file, and `conf/repair/NAME.yaml` for the command line. Code outside this package calls
`register(name, repair)` instead of adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil

from dcodp.errors import InputError
from dcodp.repairs.case import Repair

_REGISTERED: dict[str, Repair] = {}


def names() -> tuple[str, ...]:
    """All repairs, in alphabetical order."""
    return tuple(sorted({*(module.name for module in pkgutil.iter_modules(__path__)), *_REGISTERED}))


def repair_named(name: str) -> Repair:
    """Raises InputError for a name that is not known."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in names():
        raise InputError(f"repair={name} is not known; use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").REPAIR


def register(name: str, new: Repair) -> None:
    """Make a repair of one's own known under `name`. Raises InputError where the name is taken."""
    if name in names():
        raise InputError(f"a repair {name} exists already; register yours under another name")
    _REGISTERED[name] = new
