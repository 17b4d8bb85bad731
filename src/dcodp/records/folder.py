"""The files of a run by name, and what is said where there are no runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcodp.errors import InputError
from dcodp.files.leases import NAME


@dataclass(frozen=True)
class RunFolder:
    """The files of one run by name; nothing is created before something is written."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def running(self) -> Path:
        return self.path / "running.json"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def lease(self) -> Path:
        return self.path / NAME

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.png"

    @property
    def mirrored(self) -> Path:
        return self.path / "wandb.json"


def run_folder(results: Path, run_id: str) -> RunFolder:
    return RunFolder(Path(results) / "runs" / run_id)


def shared_folder(results: Path, name: str) -> RunFolder:
    """Of a job that computes what several runs share; its record says how that went."""
    return RunFolder(Path(results) / "jobs" / name)


def no_runs(results: Path) -> InputError:
    """Nothing to show yet; `dcodp` is there installed and in a checkout, where `python run.py` is `dcodp run`."""
    return InputError(f"no runs in {results / 'runs'}; start with: dcodp run")
