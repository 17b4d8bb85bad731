"""How a training shows itself: a bar on a terminal, else one log line per epoch."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)


class Display:
    """A context manager; `quiet` is for all processes but the first of a multi-device training."""

    def __init__(self, name: str, epochs: int, steps_per_epoch: int, epoch: int, quiet: bool = False):
        console = Console(stderr=True)
        self.name, self.epochs, self.steps_per_epoch, self.quiet = name, epochs, steps_per_epoch, quiet
        columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=console, transient=True) if console.is_terminal and not quiet else None
        self.task = None
        if self.bar is not None:
            total, done = epochs * steps_per_epoch, epoch * steps_per_epoch
            self.task = self.bar.add_task(f"training {name}", total=total, completed=done)

    def __enter__(self) -> Display:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.advance(self.task)

    def epoch(self, row: dict[str, Any]) -> None:
        fitness = row.get("map50_95")
        accuracy = "" if fitness is None else f", map50_95 {fitness:.3f}"
        line = f"training {self.name}: epoch {row['epoch']}/{self.epochs}, loss {row['loss']:.3f}{accuracy}"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, description=line)
        elif not self.quiet:
            log.info("%s, %.1f s", line, row["seconds"])
