"""Things of one kind by name: a package holds one file each, and what others bring is found the same way."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import MutableSequence
from pathlib import Path
from typing import Generic, TypeVar

from dcodp.errors import InputError

Thing = TypeVar("Thing")


class Registry(Generic[Thing]):
    """`PACKAGE/NAME.py` (or a package) holds the thing NAME under `attribute`; it is imported when it is asked for.

    `key` is the configuration's key that takes a name, `kind` what such a thing is called ("a criterion").
    """

    def __init__(self, package: str, attribute: str, key: str, kind: str) -> None:
        self.package, self.attribute, self.key, self.kind = package, attribute, key, kind
        self.registered: dict[str, Thing] = {}

    def names(self) -> tuple[str, ...]:
        """All of this kind, in alphabetical order."""
        files = (module.name for module in pkgutil.iter_modules(self._folders()))
        return tuple(sorted({*files, *self.registered}))

    def named(self, name: str) -> Thing:
        """Raises InputError for a name that is not known."""
        if name in self.registered:
            return self.registered[name]
        if hasattr(known := sys.modules.get(f"{self.package}.{name}"), self.attribute):
            return getattr(known, self.attribute)  # without a look into the folders
        if name not in self.names():
            raise InputError(f"{self.key}={name} is not known; use one of {', '.join(self.names())}")
        return getattr(importlib.import_module(f"{self.package}.{name}"), self.attribute)

    def register(self, name: str, new: Thing) -> None:
        """Make one's own known under `name`. Raises InputError where the name is taken."""
        if name in self.names():
            raise InputError(f"{self.kind} {name} exists already; register yours under another name")
        self.registered[name] = new

    def look_in(self, folder: Path) -> None:
        """Find FOLDER/NAME.py too, after the package's own."""
        if folder.is_dir() and str(folder) not in self._folders():
            self._folders().append(str(folder))

    def _folders(self) -> MutableSequence[str]:
        return sys.modules[self.package].__path__
