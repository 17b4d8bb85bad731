"""From what was typed to typed configurations: composes conf/, expands sweeps, checks every cell before any starts."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dcodp.config import Config, validate
from dcodp.errors import InputError

Cell = tuple[list[str], Config]  # overrides and what they compose to


def register() -> None:
    """Make the schema known to Hydra; called by run.py before anything is composed."""
    ConfigStore.instance().store(name="schema", node=Config)


def to_config(composed: DictConfig) -> Config:
    """A composed configuration as dataclasses, all interpolations resolved and all values in range."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    validate(config)
    return config


def cells(conf: Path, overrides: Sequence[str]) -> list[Cell]:
    """Every cell that the overrides ask for (one without a sweep), composed and checked.

    Raises InputError, one line that names the key, for whatever cannot be composed or is out of range.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise InputError(f"{_first_line(error)}; write overrides as key=value") from error
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        return [(list(chosen), _compose(list(chosen))) for chosen in itertools.product(*map(_choices, parsed))]


def _choices(override: Override) -> list[str]:
    line = override.input_line
    assert line is not None
    if not override.is_sweep_override():
        return [line]
    key = line.partition("=")[0]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _compose(overrides: list[str]) -> Config:
    plain = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    try:
        return to_config(compose("config", plain))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explained(error, plain)) from error


def _explained(error: Exception, overrides: list[str]) -> str:
    """Hydra's message as one line that says what is allowed."""
    text = str(error)
    cause = error.__cause__
    culprit = next((o for o in overrides if o.partition("=")[0].lstrip("+~") in text), None)
    key = (culprit or "").partition("=")[0]
    if "Could not find" in text or "MissingConfigException" in type(error).__name__:
        group = next((o for o in overrides if (o.partition("=")[0] + "/" + o.partition("=")[2]) in text), culprit)
        options = text.partition("Available options")[2].partition("Config search path")[0].split("\n")[1:]
        return f"{group} is not known; use one of {', '.join(sorted(o.strip() for o in options if o.strip()))}"
    if "not in" in text or (cause is not None and "not in" in str(cause)):
        return f"the key {key} is not known; {_nearest(key)}"
    return f"{culprit or 'the configuration'} is not understood: {_first_line(cause or error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _nearest(key: str) -> str:
    known = _keys(OmegaConf.to_container(OmegaConf.structured(Config)))
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else "see python run.py --help for the keys"


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix]
    return [k for name, value in tree.items() for k in _keys(value, f"{prefix}.{name}" if prefix else str(name))]
