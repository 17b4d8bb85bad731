"""What a sweep consists of: cells, and ahead of them as jobs of their own what several of them share.

Without these, all but one of the cells that share a dense net would wait for it in their workers' slots, with a GPU
each. Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dcodp.config import Config, to_dict
from dcodp.files import digest
from dcodp.identity import dense_key, evidence_key, run_id, scores_key


@dataclass(frozen=True)
class Job:
    """One piece of work. `configs` are one for a cell or a dense net, and for scores one for each that differ."""

    name: str  # unique in a sweep: the run's id, dense-KEY, scores-KEY
    kind: str  # dense | scores | cell
    configs: tuple[Config, ...]
    after: tuple[str, ...]  # the names of the jobs that come before it
    launch: str  # of which call of the command it is part
    folder: str  # where the command was called, which relative paths start from


def jobs_of(cells: Sequence[Config]) -> list[Job]:
    """The jobs in an order in which each comes after those that it names."""
    launch, folder = digest([os.getpid(), os.urandom(8).hex()]), os.getcwd()
    cells = list({run_id(config): config for config in cells}.values())
    by_dense, by_evidence = _shared(cells, dense_key), _shared(cells, evidence_key)
    jobs = [Job(f"dense-{key}", "dense", (configs[0],), (), launch, folder) for key, configs in by_dense.items()]
    for key, configs in by_evidence.items():
        before = (f"dense-{dense_key(configs[0])}",)
        jobs.append(Job(f"scores-{key}", "scores", _different(configs, _scored), before, launch, folder))
    for config in cells:
        before = [f"scores-{key}" for key in [evidence_key(config)] if key in by_evidence]
        before = before or [f"dense-{key}" for key in [dense_key(config)] if key in by_dense]
        jobs.append(Job(run_id(config), "cell", (config,), tuple(before), launch, folder))
    return jobs


def _shared(cells: Sequence[Config], key: Callable[[Config], str]) -> dict[str, list[Config]]:
    """key → the cells that share it, where they are several."""
    groups: dict[str, list[Config]] = {}
    for config in cells:
        groups.setdefault(key(config), []).append(config)
    return {key: configs for key, configs in groups.items() if len(configs) > 1}


def _different(configs: Sequence[Config], key: Callable[[Config], str]) -> tuple[Config, ...]:
    return tuple({key(config): config for config in reversed(configs)}.values())[::-1]


def _scored(config: Config) -> str:
    """What decides the scores and all else that is looked up beside them before anything is pruned."""
    return digest([scores_key(config), to_dict(config.repair), to_dict(config.allocation)])
