"""Weights & Biases as a mirror of the records: the same numbers under flat names, never their source.

Offline by default: the runs lie under results/wandb and `wandb sync` sends them when somebody wants that.
Whatever W&B fails at is told once and never stops a run.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dcodp.config import WandbConfig
from dcodp.errors import InputError
from dcodp.files import digest, read_json, write_atomically
from dcodp.records import STAGES, Record, RunFolder, plain, read_metrics, run_folder

WAIT_S = 60.0  # for a server that does not answer: W&B itself would wait for ever, with the worker's GPU


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"dense": {"map50": 0.5}} → {"dense/map50": 0.5}; missing values (None) are left out, lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def mirrored_numbers(record: Record) -> dict[str, Any]:
    """What W&B's summary shows: the status, the evaluation blocks and the wall times."""
    blocks = {stage: block for stage in STAGES if (block := record.block(stage))}
    times = record.provenance.get("wall_seconds") or {}
    return flatten(plain({"status": record.status, **blocks, "wall_seconds": times}, []))


class Mirror:
    """One run at W&B. Started by the first thing that is logged; with mode "disabled" wandb is not even imported."""

    def __init__(
        self,
        settings: WandbConfig,
        run_id: str,
        group: str | None,
        results: Path,
        config: Mapping[str, Any] | None = None,
    ):
        self.settings, self.run_id, self.group, self.results = settings, run_id, group, Path(results)
        self.config = dict(config or {})
        self._active = settings.mode != "disabled"
        self._run: Any = None

    def log(self, row: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; with a `stage` its names become "stage/name", drawn over "stage/epoch"."""
        prefix = f"{row['stage']}/" if "stage" in row else ""
        values = flatten(plain({key: value for key, value in row.items() if key != "stage"}, []), prefix)
        self._attempt(lambda: self._started().log(values))

    def finish(self, record: Record) -> bool:
        """Mirrors the record and closes the run, leaving a mark that `sync` heeds; False where nothing was mirrored."""
        return self._attempt(lambda: self._close(record))

    def _close(self, record: Record) -> None:
        run = self._started()
        run.config.update({"provenance": record.provenance}, allow_val_change=True)
        run.summary.update(mirrored_numbers(record))
        run.finish(exit_code=0 if record.status == "done" else 1)
        self._run = None
        mark = {"mode": self.settings.mode, "digest": digest(mirrored_numbers(record))}
        write_atomically(run_folder(self.results, self.run_id).mirrored, json.dumps(mark) + "\n")

    def _started(self) -> Any:
        if self._run is None:
            self._run = self._start()
        return self._run

    def _start(self) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self.results.mkdir(parents=True, exist_ok=True)
        online = self.settings.mode == "online"
        run = wandb.init(
            project=self.settings.project,
            id=self.run_id,
            name=self.run_id,
            group=self.group,
            mode="online" if online else "offline",
            resume="allow" if online else None,  # offline, resuming an id is refused
            reinit="finish_previous",  # a cell that failed earlier in this process has left its run open
            dir=str(self.results),
            config=self.config,
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                save_code=False,
                init_timeout=WAIT_S,
                finish_timeout=WAIT_S,
                finish_timeout_raises=True,
            ),
        )
        for stage in ("train", "finetune"):
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
        return run

    def _attempt(self, action: Callable[[], Any]) -> bool:
        """True where `action` was done. W&B's expected failures become one warning, and nothing is tried again."""
        if not self._active:
            return False
        try:
            action()
        except expected_failures() as error:
            self._active = False
            warnings.warn(f"W&B stopped ({type(error).__name__}: {error}); the run goes on, its record is complete")
        return self._active


def expected_failures() -> tuple[type[Exception], ...]:
    """What W&B may fail with through no fault of ours: not installed, no network, no key, its service gone."""
    failures: list[type[Exception]] = [ImportError, OSError, InputError]
    if "wandb" in sys.modules:
        from wandb.errors import Error
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        failures += [Error, HandleAbandonedError, MailboxClosedError]
    return tuple(failures)


def sync(settings: WandbConfig, record: Record, results: Path, group: str | None = None) -> bool:
    """Mirrors a finished run, epochs included; does nothing (False) where its mark says that this was done."""
    folder = run_folder(results, record.run_id)
    if settings.mode == "disabled" or _is_mirrored(folder, record, settings.mode):
        return False
    mirror = Mirror(settings, record.run_id, group, results, record.config)
    for row in read_metrics(folder):
        mirror.log(row)
    return mirror.finish(record)


def _is_mirrored(folder: RunFolder, record: Record, mode: str) -> bool:
    """The mark names these very numbers, and online where online is asked for."""
    if not folder.mirrored.exists():
        return False
    mark = read_json(folder.mirrored)
    return mark.get("digest") == digest(mirrored_numbers(record)) and mark.get("mode") in (mode, "online")
