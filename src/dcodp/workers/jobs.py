"""What a sweep consists of: cells, and ahead of them as jobs of their own what several of them share.

Without these, all but one of the cells that share a dense net would wait for it in their workers' slots, with a GPU
each. Needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dcodp.config import Config, to_dict
from dcodp.files import digest
from dcodp.identity import Identity, identify


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
    known = {identity.run: (identity, config) for config in cells for identity in [identify(config)]}
    by_dense, by_evidence = _shared(known.values(), "dense"), _shared(known.values(), "evidence")
    jobs = [Job(f"dense-{key}", "dense", (group[0][1],), (), launch, folder) for key, group in by_dense.items()]
    for key, group in by_evidence.items():
        different = {_scored(*cell): cell[1] for cell in reversed(group)}  # the first of each
        before = (f"dense-{group[0][0].dense}",)
        jobs.append(Job(f"scores-{key}", "scores", tuple(different.values())[::-1], before, launch, folder))
    for name, (identity, config) in known.items():
        before = (f"scores-{identity.evidence}",) if identity.evidence in by_evidence else ()
        before = before or ((f"dense-{identity.dense}",) if identity.dense in by_dense else ())
        jobs.append(Job(name, "cell", (config,), before, launch, folder))
    return jobs


def _shared(cells: Iterable[tuple[Identity, Config]], key: str) -> dict[str, list[tuple[Identity, Config]]]:
    """key → the cells that share it, where they are several."""
    groups: dict[str, list[tuple[Identity, Config]]] = {}
    for identity, config in cells:
        groups.setdefault(getattr(identity, key), []).append((identity, config))
    return {key: group for key, group in groups.items() if len(group) > 1}


def _scored(identity: Identity, config: Config) -> str:
    """What decides the scores and all else that is looked up beside them before anything is pruned."""
    return digest([identity.scores, to_dict(config.repair), to_dict(config.allocation)])
