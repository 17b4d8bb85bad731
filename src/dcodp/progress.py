"""Progress of what a person waits for: on the terminal's error stream, and silent where that is no terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import rich.progress
from rich.console import Console
from rich.logging import RichHandler

Item = TypeVar("Item")


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items as they come, counted on a bar that vanishes when they are through."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    yield from rich.progress.track(items, description, total=total, console=console, transient=True)


def waiting(description: str) -> AbstractContextManager[Any]:
    """A spinner around one long step."""
    console = Console(stderr=True)
    return console.status(description) if console.is_terminal else nullcontext()


def set_up_logging() -> None:
    """Progress notes of ours on the error stream; other libraries only when something is wrong."""
    handler = RichHandler(console=Console(stderr=True), show_path=False, show_level=False, log_time_format="%X")
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("dcodp").setLevel(logging.INFO)
