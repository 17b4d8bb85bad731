"""Which device a cell runs on, and that no two cells of this machine share a GPU by accident."""

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
def device_for(wanted: str) -> Iterator[torch.device]:
    """ "cpu", "cuda:1", or "auto": the first GPU that no other cell holds (waiting for one), else the CPU.

    Launchers such as joblib start several cells in processes that all see every GPU; a lock per GPU, held for as
    long as the cell runs and freed by the operating system if it is killed, gives each its own.
    """
    gpus = torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        yield torch.device("cpu")
        return
    indices = list(range(gpus)) if wanted in ("auto", "cuda") else [_index(wanted, gpus)]
    if not indices:
        raise InputError(f"device={wanted}, but no GPU is visible here; use device=cpu or device=auto")
    with _lease(indices) as index:
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


def _index(wanted: str, gpus: int) -> int:
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or not number.isdigit() or int(number) >= gpus:
        raise InputError(
            f"device={wanted} is not here ({gpus} GPUs); use auto, cpu or cuda:0 … cuda:{max(gpus - 1, 0)}"
        )
    return int(number)


@contextlib.contextmanager
def _lease(indices: list[int]) -> Iterator[int]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    folder = Path(tempfile.gettempdir())
    told = False
    while True:
        for index in indices:
            lock = filelock.FileLock(folder / f"dcodp-gpu-{names[index].strip()}.lock", timeout=0)
            try:
                with lock:
                    yield index
                    return
            except filelock.Timeout:
                continue
        if not told:
            logging.getLogger(__name__).info("all GPUs are taken by other cells; waiting for one")
            told = True
        time.sleep(POLL_S)
