"""The criteria by name: `criteria/NAME.py` holds the criterion NAME as its `CRITERION`.

A new one takes that file, and `conf/importance/NAME.yaml` for the command line. Code outside this package calls
`register(name, criterion)` instead of adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil

from dcodp.errors import InputError
from dcodp.importance.criterion import Criterion

_REGISTERED: dict[str, Criterion] = {}


def names() -> tuple[str, ...]:
    """All criteria, in alphabetical order."""
    return tuple(sorted({*(module.name for module in pkgutil.iter_modules(__path__)), *_REGISTERED}))


def criterion(name: str) -> Criterion:
    """Raises InputError for a name that is not known."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in names():
        raise InputError(f"importance={name} is not known; use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").CRITERION


def register(name: str, new: Criterion) -> None:
    """Make a criterion of one's own known under `name`. Raises InputError where the name is taken."""
    if name in names():
        raise InputError(f"a criterion {name} exists already; register yours under another name")
    _REGISTERED[name] = new
