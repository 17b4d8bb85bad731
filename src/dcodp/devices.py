"""Which devices a cell runs on, and that no two cells of this machine share a GPU by accident."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import torch

from dcodp.errors import InputError

POLL_S = 2.0


@contextlib.contextmanager
def devices_for(wanted: str, count: int = 1) -> Iterator[list[torch.device]]:
    """`count` devices: "cpu", "cuda:1", or "auto", the first GPUs that no other cell holds (waiting for them).

    Without a GPU "auto" is the CPU, which then stands in the list once for each process. Launchers such as joblib
    start several cells in processes that all see every GPU; a lock per GPU, held for as long as the cell runs and
    freed by the operating system if it is killed, gives each its own.
    """
    gpus = torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        yield [torch.device("cpu")] * count
        return
    indices = list(range(gpus)) if wanted in ("auto", "cuda") else [_index(wanted, gpus)]
    if not indices:
        raise InputError(f"device={wanted}, but no GPU is visible here; use device=cpu or device=auto")
    if count > len(indices):
        raise InputError(f"devices={count} with device={wanted}, which are {len(indices)} here; ask for fewer")
    with _lease(indices, count) as leased:
        torch.cuda.set_device(leased[0])
        yield [torch.device("cuda", index) for index in leased]


def device_named(wanted: str) -> torch.device:
    """The device, which is not leased: "auto" is the first GPU, else the CPU. Raises InputError for one that is not
    here."""
    gpus = torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return torch.device("cpu")
    return torch.device("cuda", 0 if gpus and wanted in ("auto", "cuda") else _index(wanted, gpus))


def _index(wanted: str, gpus: int) -> int:
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or not number.isdigit() or int(number) >= gpus:
        raise InputError(
            f"device={wanted} is not here ({gpus} GPUs); use auto, cpu or cuda:0 … cuda:{max(gpus - 1, 0)}"
        )
    return int(number)


@contextlib.contextmanager
def _lease(indices: list[int], count: int) -> Iterator[list[int]]:
    """Holds the locks of `count` of the GPUs, all or none of them, so that two waiting cells never block each other."""
    folder = Path(tempfile.gettempdir())
    told = False
    while True:
        with contextlib.ExitStack() as held:
            leased = []
            for index in indices:
                lock = filelock.FileLock(folder / f"dcodp-gpu-{_name(index)}.lock", timeout=0, mode=0o666)
                with contextlib.suppress(filelock.Timeout):
                    held.enter_context(lock)
                    leased.append(index)
                if len(leased) == count:
                    yield leased
                    return
        if not told:
            logging.getLogger(__name__).info("too many GPUs are taken by other cells; waiting for %d", count)
            told = True
        time.sleep(POLL_S)


def _name(index: int) -> str:
    """What a GPU is called by every process of this machine: its UUID, as far as it can be told.

    What this process counts from 0 may be another GPU for its neighbour: SLURM and containers show each job its own,
    and CUDA_VISIBLE_DEVICES then says 0 to all of them.
    """
    asked = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    called = asked[index] if index < len(asked) and asked[index] else str(index)
    if called.startswith("MIG-"):  # a part of a GPU
        return called.replace("/", "-")
    uuid = str(getattr(torch.cuda.get_device_properties(index), "uuid", "")).removeprefix("GPU-")
    return uuid if uuid.strip("0-") else called
