"""The files of a training: whole or not at all, and no pickle that needs trust."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.files import read_json, replacing, write_atomically
from dcodp.files.loading import load_strictly
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.records.folder import RunFolder
from dcodp.records.metrics import read_metrics

LAST, BEST, DONE = "last.ckpt", "best.safetensors", "done.json"


def load_best(detector: Detector, folder: Path) -> None:
    """Puts the best weights of a finished training into the detector's network, to which no class is new any more.

    Raises InputError where there are none, or where their shapes differ from the network's.
    """
    load_strictly(detector.network, load_tensors(folder / BEST)[0], folder / BEST)
    detector.fresh = 0.0


def save_best(network: nn.Module, folder: Path) -> None:
    save_tensors(network.state_dict(), folder / BEST)


def write_done(folder: Path, summary: dict[str, Any]) -> None:
    write_atomically(folder / DONE, json.dumps(summary) + "\n")


def is_done(folder: Path) -> bool:
    """Raises InputError where done.json is damaged."""
    return (folder / DONE).exists() and bool(read_json(folder / DONE))


def save_last(folder: Path, content: dict[str, Any]) -> None:
    """last.ckpt, replaced in one step. Raises InputError where the disk is full; the previous one is then kept."""
    with replacing(folder / LAST) as stream:
        torch.save(content, stream)


def load_last(folder: Path) -> dict[str, Any] | None:
    """The content of last.ckpt on the CPU, None where there is none yet. Raises InputError for a damaged file."""
    path = folder / LAST
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read ({reason}); delete it to start this training anew") from error


def drop_metrics_after(folder: Path, epoch: int) -> None:
    """Lines of epochs beyond the checkpoint's go: those epochs are computed again."""
    rows = read_metrics(RunFolder(folder))
    if len(rows) > epoch:
        write_atomically(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows[:epoch]))
