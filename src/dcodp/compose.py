"""From what was typed to typed configurations: composes conf/, expands sweeps, checks every cell before any starts."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from dcodp import own
from dcodp.config import Config, validate
from dcodp.errors import InputError
from dcodp.planning import composed
from dcodp.records import load_records, read_sweeps
from dcodp.stepping import steps_to
from dcodp.workers.launching import RayConfig, slurm_config

Cell = tuple[list[str], Config]  # overrides and what they compose to
RENAMED = {
    "scope": "write allocation=uniform in place of scope=local, and allocation=global in place of scope=global",
    "compensate": "write repair=least_squares, or leave it out",
}
WEIGHTS = (".pt", ".pth", ".safetensors")  # of weights files, which are looked for in a folder by the model's name
SEARCH = "hydra.searchpath"  # the one setting of Hydra's own that decides what a cell is composed from


def register() -> None:
    """Make the schema, the nets of ultralytics and what conf/ computes known to Hydra; called before all composing."""
    OmegaConf.register_new_resolver("steps_to", steps_to, replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="hydra/launcher", name="dcodp_ray", node=RayConfig)
    store.store(group="hydra/launcher", name="dcodp_slurm", node=slurm_config())
    for name in known_nets():
        store.store(group="model", name=name, node={"name": name, "family": "ultralytics", "variant": name})


@functools.cache
def known_nets() -> tuple[str, ...]:
    """Ultralytics' detectors by name, each scale (yolo11n, rtdetr-l), but for those that conf/model describes; read
    from the files beside its code, which is not imported for it."""
    from dcodp.resources import folder

    found = importlib.util.find_spec("ultralytics")
    own = {path.stem for path in (folder("conf") / "model").glob("*.yaml")}
    files = Path(found.origin).parent.glob("cfg/models/*/*.yaml") if found is not None and found.origin else ()
    names = {name for file in files if _detects(file.stem) for name in _scaled(file)}
    return tuple(sorted(names - own))


def _detects(stem: str) -> bool:
    return not re.search(r"-(cls|seg|pose|obb|sem|depth)|yoloe|world", stem)


def _scaled(file: Path) -> list[str]:
    """yolo11.yaml with scales n, s, … → yolo11n, yolo11s, …: the letter follows the number of the version."""
    scales = yaml.safe_load(file.read_text()).get("scales") or {}
    if len(scales) < 2:
        return [file.stem]
    return [re.sub(r"^(yolov?\d+)", rf"\g<1>{scale}", file.stem) for scale in scales]


def to_config(composed: DictConfig) -> Config:
    """A composed configuration as dataclasses, all interpolations resolved and all values in range."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    for key in ("weights", "backbone_weights"):
        setattr(config.model, key, _weights_file(config.model.name, f"model.{key}", getattr(config.model, key)))
    own.use(config.paths.own)
    _check(config)
    return config


def _check(config: Config) -> None:
    """Raises InputError where values are out of range or do not go together."""
    validate(config)
    ranked = config.allocation.name == "global"
    if config.importance.aggregate != "sum" or ranked:  # criteria need torch: only where it matters
        from dcodp.importance import criterion
        from dcodp.importance.criterion import check

        check(config.importance.name, criterion(config.importance.name), config.importance.aggregate, ranked)


def _weights_file(model: str, key: str, place: str | None) -> str | None:
    """Of a folder, the file that is named for the model (yolov8n.pt), so that one override serves a sweep over several
    detectors; whatever is no folder is left as it is. Raises InputError where none or several files are so named."""
    if place is None or not Path(place).is_dir():
        return place
    named = [path for ending in WEIGHTS for path in [Path(place, model + ending)] if path.is_file()]
    if len(named) == 1:
        return str(named[0])
    if not named:
        wanted = f"{', '.join(model + ending for ending in WEIGHTS[:-1])} or {model + WEIGHTS[-1]}"
        raise InputError(f"{key}={place} holds no weights of {model}; put {wanted} there, or give the file itself")
    found = " and ".join(path.name for path in named)
    raise InputError(f"{key}={place} holds {found}; leave one of them there, or give the file itself")


def cells(conf: Path, overrides: Sequence[str], config_dir: Path | None = None) -> list[Cell]:
    """Every cell that the overrides ask for (one without a sweep), composed and checked.

    An experiment's overlay asks for cells of its own in hydra.sweeper.params. As in Hydra's sweeper these come first
    and are replaced, in their place, by an override of the same key that was typed; the rightmost key varies fastest.
    `config_dir` adds a folder of one's own (model/NAME.yaml, experiment/NAME.yaml, …): names that conf/ does not have.
    Raises InputError, one line that names the key, for whatever cannot be composed or is out of range.
    """
    typed = _parsed([*expanded(overrides), *_searched(config_dir)])
    if any(o.is_sweep_override() and o.get_key_element() == "experiment" for o in typed):
        raise InputError("several experiments were asked for in one sweep; run them one after the other")
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        fixed = [line for o in typed if not o.is_sweep_override() for line in _choices(o)]
        with _explaining(fixed):
            whole = compose("config", fixed, return_hydra_config=True)
        asked = [*_parsed(_sweeper_params(whole)), *typed]
        choices = {override.get_key_element(): _choices(override) for override in asked}
        if len(choices) == len(fixed) == len(asked):  # one cell, which is composed already
            with _explaining(fixed):
                return [(fixed, to_config(_without_hydra(whole)))]
        with _explaining([line for lines in choices.values() for line in lines]):
            return composed(choices, _compose, _check)


def unfinished(conf: Path, overrides: Sequence[str], config_dir: Path | None = None) -> list[Cell]:
    """The cells of all sweeps in paths.results that are not done and that nobody computes, with these overrides on top
    (launcher=, device=, …). Raises InputError where a sweep is asked for, or there is nothing to resume."""
    asked = cells(conf, overrides, config_dir)
    if len(asked) > 1:
        raise InputError("--resume-failed takes the cells of sweeps that were started; type one value per key")
    results = Path(asked[0][1].paths.results)
    states = {record.run_id: record.status for record in load_records(results)}
    wanted = [cell for sweep in read_sweeps(results) for cell in sweep.cells]
    left = [cell for cell in wanted if states.get(cell.run_id) not in ("done", "running")]
    if not left:
        raise InputError(f"every cell of the {len(read_sweeps(results))} sweeps in {results} is done or being computed")
    return [cell for one in left for cell in cells(conf, _over(one.overrides, overrides), config_dir)]


def _over(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Overrides, where those of `now` take the place of others of the same key."""
    typed = {word.partition("=")[0].lstrip("+~") for word in now}
    return [word for word in before if word.partition("=")[0].lstrip("+~") not in typed] + list(now)


def launcher(conf: Path, overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """hydra.launcher, as composed from what the overrides ask for in all cells alike."""
    typed = _parsed([*expanded(overrides), *_searched(config_dir)])
    fixed = [line for o in typed if not o.is_sweep_override() for line in _choices(o)]
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"), _explaining(fixed):
        whole = compose("config", fixed, return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        tree = OmegaConf.to_container(whole.hydra.launcher, resolve=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def expanded(overrides: Sequence[str]) -> list[str]:
    """`model=PATH.yaml`, a description of one's own for ultralytics' builder, as the keys that it stands for."""
    found: list[str] = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key == "model" and value.endswith((".yaml", ".yml")) and "," not in value:
            found += [f"model={known_nets()[0]}", f"model.name={Path(value).stem}", f"model.variant='{value}'"]
        else:
            found.append(word)
    return found


def _searched(config_dir: Path | None) -> list[str]:
    """Hydra's --config-dir as an override: looked into after conf/, so that it adds and never replaces."""
    if config_dir is None:
        return []
    if not config_dir.is_dir():
        raise InputError(f"--config-dir {config_dir} is no folder; give the one with model/NAME.yaml, …")
    return [f"{SEARCH}=['file://{config_dir.resolve()}']"]


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise InputError(f"{_first_line(error)}; write overrides as key=value") from error


def _sweeper_params(composed: DictConfig) -> list[str]:
    """What the overlays put into hydra.sweeper.params, as overrides: ["model=yolov8n,yolov7", "ratio=0.2,0.5,0.7"]."""
    return [f"{key}={values}" for key, values in (composed.hydra.sweeper.get("params") or {}).items()]


def _without_hydra(composed: DictConfig) -> DictConfig:
    """As `compose` gives it where Hydra's own settings are not asked for."""
    with flag_override(composed, ["read_only", "struct"], False):
        del composed["hydra"]
    return composed


def _choices(override: Override) -> list[str]:
    line = override.input_line
    assert line is not None
    if not override.is_sweep_override():
        return [line]
    key = line.partition("=")[0]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _compose(overrides: list[str]) -> tuple[Config, dict[str, str]]:
    """The cell, and what its keys hold that refer to others."""
    plain = [o for o in overrides if o.startswith(SEARCH) or not o.lstrip("+~").startswith("hydra")]
    with _explaining(plain):
        whole = compose("config", plain)
        return to_config(whole), dict(_references(OmegaConf.to_container(whole, resolve=False)))


def _references(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, str) and "${" in value:
            yield f"{prefix}{name}", value
        yield from _references(value, f"{prefix}{name}.")


@contextlib.contextmanager
def _explaining(overrides: list[str]) -> Iterator[None]:
    """What Hydra refuses becomes an InputError, one line that says what is allowed."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explained(error, overrides)) from error


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
        return f"the key {key} is not known; {RENAMED.get(key) or _nearest(key)}"
    return f"{culprit or 'the configuration'} is not understood: {_first_line(cause or error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _nearest(key: str) -> str:
    known = _keys(OmegaConf.to_container(OmegaConf.structured(Config)))
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else "see dcodp run --help for the keys"


def _keys(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix]
    return [k for name, value in tree.items() for k in _keys(value, f"{prefix}.{name}" if prefix else str(name))]
