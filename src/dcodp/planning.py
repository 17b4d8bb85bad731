"""Thousands of cells from a sweep in seconds: Hydra composes once for each choice of files (model, importance, …), and
what else varies from cell to cell (ratio, seed, …) is set in copies of what came out.

That is the same as composing each cell, because Hydra too sets such values last. A key that takes the value of another
(${seed}) is set along with it; where it makes something else of it, each cell is composed like a single one.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from dcodp.config import Config, keys

NOT_PLAIN = ("model", "dataset", "paths", "method")  # looked up when a cell is composed; `method` also names a file
Compose = Callable[[list[str]], tuple[Config, dict[str, str]]]  # overrides → cell, and its interpolations by key


def composed(
    choices: Mapping[str, Sequence[str]], compose: Compose, check: Callable[[Config], object]
) -> list[tuple[list[str], Config]]:
    """Every combination of the choices (key → overrides), the rightmost fastest, with what it composes to.

    `check` raises for a cell that is not allowed.
    """
    plain = {key for key, lines in choices.items() if len(lines) > 1 and _is_plain(key)}
    bases: dict[tuple[str, ...], tuple[Config, dict[str, str]]] = {}
    found = []
    for chosen in itertools.product(*choices.values()):
        values = {key: line for key, line in zip(choices, chosen, strict=True) if key in plain}
        rest = tuple(line for key, line in zip(choices, chosen, strict=True) if key not in plain)
        if rest not in bases:
            bases[rest] = compose(list(chosen))
        deciding = tuple(line for key, line in values.items() if _decides(key, bases[rest][1]))
        if deciding and rest + deciding not in bases:
            bases[rest + deciding] = compose(list(chosen))
        config = _with(*bases[rest + deciding], values)
        check(config)
        found.append((list(chosen), config))
    return found


def _decides(key: str, references: Mapping[str, str]) -> bool:
    """Whether any key makes more of the value of this one than to take it."""
    return any(f"{key}}}" in text and text != f"${{{key}}}" for text in references.values())


def _is_plain(key: str) -> bool:
    return key in _leaves() and key.partition(".")[0] not in NOT_PLAIN


@functools.cache
def _leaves() -> frozenset[str]:
    """The keys of the schema that are no sections."""
    return frozenset(key for key, value, _ in keys(Config()) if not dataclasses.is_dataclass(value))


def _with(base: Config, references: Mapping[str, str], values: Mapping[str, str]) -> Config:
    """A copy of `base` with these values; of its sections those are copied that differ, and W&B's, which may later."""
    config = copy.copy(base)
    config.wandb = copy.copy(base.wandb)
    for key, line in values.items():
        for place in (key, *(other for other, text in references.items() if text == f"${{{key}}}")):
            *parents, name = place.split(".")
            section: Any = config
            for parent in parents:
                setattr(section, parent, copy.copy(getattr(section, parent)))
                section = getattr(section, parent)
            setattr(section, name, _value(line))
    return config


@functools.cache
def _value(line: str) -> Any:
    """What "ratio=0.5" sets, as the schema's type. Raises OmegaConf's error where it cannot be that."""
    key = line.partition("=")[0]
    tree, parser = _scratch()
    OmegaConf.update(tree, key, parser.parse_override(line).value())
    return OmegaConf.select(tree, key)


@functools.cache
def _scratch() -> tuple[DictConfig, OverridesParser]:
    """The schema, in which values are tried one after the other, and what reads them."""
    return OmegaConf.structured(Config), OverridesParser.create()
