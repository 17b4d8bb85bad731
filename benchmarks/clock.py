"""How long something takes, and how much memory."""

import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


@dataclass
class Clock:
    """Seconds of each epoch's updates, without validation: of the wall, and of all threads together.

    `threads` is how many there were in the last epoch.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    started: tuple[float, float] = (0.0, 0.0)
    threads: int = 0

    def start(self, *_: Any) -> None:
        self.started = time.perf_counter(), time.process_time()

    def stop(self, *_: Any) -> None:
        self.wall.append(time.perf_counter() - self.started[0])
        self.cpu.append(time.process_time() - self.started[1])
        self.threads = torch.get_num_threads()


@contextmanager
def measured(device: str) -> Iterator[SimpleNamespace]:
    """Its `seconds` and `mebibytes` (None where the system does not tell) are known when the block is through."""
    cuda, result = torch.device(device).type == "cuda", SimpleNamespace(seconds=0.0, mebibytes=None)
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()
    start = time.perf_counter()
    yield result
    if cuda:
        torch.cuda.synchronize()
    result.seconds = time.perf_counter() - start
    result.mebibytes = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident_peak()


def forget_peak() -> None:
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # glibc: give back what was freed, or it counts for the next measurement
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest resident size starts anew
    except OSError:
        print("(this system does not reset the peak of memory: figures below never fall)")


def resident_peak() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
