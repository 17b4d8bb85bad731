"""Where conf/ (the configuration) and experiments/ (declared tables and figures) are, installed or in a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from dcodp.errors import InputError


def folder(name: Literal["conf", "experiments"]) -> Path:
    """The folder that belongs to this package: inside of it where a wheel was installed, else at the top of the
    checkout that it lies in (src/dcodp → ../..). Folders of that name elsewhere, where one stands say, never count.
    Raises InputError where neither is there."""
    package = Path(str(files("dcodp")))
    for place in (package / name, package.parents[1] / name):
        if place.is_dir():
            return place
    raise InputError(f"{package} came without its folder {name}; install dcodp again")
