"""How long the updates of a training take."""

import time
from dataclasses import dataclass, field
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
