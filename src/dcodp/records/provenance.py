"""Where a number comes from: code, libraries, device, seed, data, time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dcodp.processor import cpu_name
from dcodp.records.record import Record
from dcodp.records.running import now

LIBRARIES = ("torch", "torchvision", "ultralytics", "lightning", "numpy", "scipy", "opencv-python", "pillow",
             "pycocotools", "hotcoco", "hydra-core", "safetensors", "onnx", "onnxruntime")  # fmt: skip


def collect_provenance(
    seed: int, device: str | None = None, data_fingerprint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """device: the accelerator's name, None for the CPU; data_fingerprint: one entry per split.

    `wall_seconds` starts empty and is filled by `timed`.
    """
    return {
        "code": code_version(),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device or cpu_name(),
        "seed": seed,
        "data_fingerprint": dict(data_fingerprint or {}),
        "started": now(),
        "wall_seconds": {},
    }


def code_version() -> dict[str, str | None]:
    """{version: of the package, git: `git describe` of the checkout that the code runs from, None outside one}."""
    return {"version": _installed("dcodp"), "git": git_describe(Path(__file__).resolve())}


def git_describe(file: Path) -> str | None:
    """Tag or commit, with -dirty where the checkout was changed; None where git does not track `file`
    (an installed package, also one inside somebody else's checkout) or is not there."""
    git = ("git", "-C", str(file.parent))
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True, timeout=30)
        told = subprocess.run(
            [*git, "describe", "--tags", "--always", "--dirty"], check=True, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def library_versions() -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    found = {name: _installed(name) for name in LIBRARIES}
    return {name: version for name, version in found.items() if version}


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def timed(record: Record, stage: str) -> Iterator[None]:
    """Adds the wall time of the block to provenance.wall_seconds[stage]; a resumed stage goes on counting."""
    start = time.perf_counter()
    try:
        yield
    finally:
        clock = record.provenance.setdefault("wall_seconds", {})
        clock[stage] = round(clock.get(stage, 0.0) + time.perf_counter() - start, 3)
