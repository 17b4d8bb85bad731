"""What things are called: labels.yaml, and the reading of whatever is declared in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dcodp.errors import InputError

BESIDE = files("dcodp.report")  # the declarations that travel with the code


def read_yaml(path: Path | Traversable) -> Any:
    """Raises InputError, in one line, for whatever is no YAML."""
    try:
        with path.open(encoding="utf-8") as stream:
            return OmegaConf.to_container(OmegaConf.load(stream))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None


@cache
def declared() -> Mapping[str, Mapping[str, Any]]:
    """{"headers": {field: heading}, "values": {field: {value: label}}, "marks": {field: {value: mark}},
    "methods": {name: {field: value}}}."""
    return read_yaml(BESIDE / "labels.yaml")


def label(key: str, value: Any, special: Mapping[str, Mapping[Any, str]] | None = None) -> str:
    """How a field's value is shown: ("ratio", 0.5) → "50 %", ("model", "faster_rcnn") → "Faster R-CNN"."""
    for known in ((special or {}).get(key, {}), declared()["values"].get(key, {})):
        if value in known:
            return known[value]
    return f"{100 * value:.4g} %" if key == "ratio" else str(value)


def known_values(key: str) -> tuple[Any, ...]:
    """The values of a field that have a label, in the order of the file."""
    return tuple(declared()["values"][key])


def heading(key: str) -> str:
    """Of the column that shows a field."""
    return declared()["headers"].get(key, key)


def mark(key: str, value: Any) -> str:
    """What the name of a method says of one of its fields; "" where it is as by default."""
    return declared()["marks"].get(key, {}).get(value, f"{key}={value}")
