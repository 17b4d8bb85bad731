"""One training in several processes of this machine, each with a device and its share of every batch."""

from __future__ import annotations

import copy
import logging
import logging.handlers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import multiprocessing

from dcodp import _ultralytics
from dcodp.errors import InputError

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def make_fabric(devices: Sequence[torch.device], amp: bool) -> Fabric:
    """Lightning's view of the devices: all CPU, or GPUs, in mixed precision if `amp`."""
    from lightning.fabric import Fabric  # takes seconds to import

    strategy = "ddp_spawn" if len(devices) > 1 else "auto"
    if devices[0].type == "cpu":
        return Fabric(accelerator="cpu", strategy=strategy, devices=len(devices), precision="32-true")
    half = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    indices = [device.index or 0 for device in devices]
    return Fabric(accelerator="cuda", strategy=strategy, devices=indices, precision=half if amp else "32-true")


def in_processes(fabric: Fabric, work: Callable[..., None], *given: Any) -> None:
    """`work(fabric, *given)` in every process; what the first one logs is logged here.

    Raises the InputError of the process that raised one first; the others are stopped then.
    """
    queue = multiprocessing.get_context("spawn").Queue()
    listener = logging.handlers.QueueListener(queue, *logging.getLogger().handlers, respect_handler_level=True)
    listener.start()
    try:
        fabric.launch(_in_own_memory, _Door(), queue, work, *given)
    except multiprocessing.ProcessRaisedException as error:
        raise _told_by(error) from error
    finally:
        listener.stop()


class _Door:
    """Sent ahead: as it arrives, ultralytics is imported our way, before the detector's arrival would import it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _ultralytics.prepare, ()


def _in_own_memory(fabric: Fabric, *sent: Any) -> None:
    """What torch sends to other processes lies in memory that they share: each trains a copy of its own."""
    _, queue, work, *given = sent
    given = copy.deepcopy(given)
    if fabric.is_global_zero:
        logging.getLogger().addHandler(logging.handlers.QueueHandler(queue))
        logging.getLogger("dcodp").setLevel(logging.INFO)
    work(fabric, *given)


def _told_by(error: multiprocessing.ProcessRaisedException) -> Exception:
    """The process' own exception where it says what is wrong with the input: all that arrives is its traceback."""
    kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
    return InputError(message) if kind == f"{InputError.__module__}.{InputError.__qualname__}" else error
