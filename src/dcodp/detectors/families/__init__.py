"""The detector families by name: `families/NAME.py` (or a package) has `build(model, classes)`.

Each brings its own libraries, so it is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from dcodp.errors import InputError


def names() -> tuple[str, ...]:
    """All families, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def family_named(name: str) -> ModuleType:
    """Raises InputError for a name that is not known."""
    if name not in names():
        raise InputError(f"model.family={name} is not known; use one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
