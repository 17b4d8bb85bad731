"""One net in a process of its own, so that none can hang or kill the run."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from typing import Any


def apart(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """What `work(*arguments)` returns, or {"failure": why}: an error, no result in time, a process that ended."""
    context = multiprocessing.get_context("fork")  # what has been imported is there already
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return {"failure": f"no result after {seconds:g} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"failure": f"the process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(sender: Any, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    try:
        result = work(*arguments)
    except Exception as error:  # the table shows it and the exit status tells
        result = {"failure": f"{type(error).__name__}: {error}"[:300]}
    sender.send(result)
    sender.close()


def preload(package: str) -> None:
    """Import what a net needs once, before processes are split off."""
    if package == "ultralytics":
        from dcodp import _ultralytics

        _ultralytics.prepare()
    importlib.import_module(package)
