"""One training in several processes of this machine, each with a device and its share of every batch."""

from __future__ import annotations

import contextlib
import copy
import datetime
import logging
import logging.handlers
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import multiprocessing

from dcodp import _ultralytics
from dcodp.errors import InputError
from dcodp.training.precision import multiplies_bfloat16

if TYPE_CHECKING:
    from lightning.fabric import Fabric

log = logging.getLogger(__name__)
PATIENCE = datetime.timedelta(days=1)  # of the other processes, while the first one validates and saves
GRACE_S = 10.0  # for processes that were asked to stop


def make_fabric(devices: Sequence[torch.device], amp: bool, amp_on_cpu: bool = False) -> Fabric:
    """Lightning's view of the devices: all CPU, in mixed precision if `amp_on_cpu`, or GPUs, so if `amp`."""
    from lightning.fabric import Fabric  # takes seconds to import
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.fabric.strategies import DDPStrategy

    # Our own processes, also inside a SLURM job, whose number of tasks says nothing about them.
    options: dict[str, Any] = {"plugins": [LightningEnvironment()], "devices": len(devices), "accelerator": "cpu"}
    if len(devices) > 1:
        options["strategy"] = DDPStrategy(start_method="spawn", timeout=PATIENCE)
    if devices[0].type == "cpu":
        if amp_on_cpu and not multiplies_bfloat16():
            log.warning(
                "amp_on_cpu=true: this processor has no products in bfloat16, so it is far slower; leave it out"
            )
        return Fabric(**options, precision="bf16-mixed" if amp_on_cpu else "32-true")
    half = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    options |= {"devices": [device.index or 0 for device in devices], "accelerator": "cuda"}
    return Fabric(**options, precision=half if amp else "32-true")


def in_processes(fabric: Fabric, work: Callable[..., None], *given: Any) -> None:
    """`work(fabric, *given)` in every process; what the first one logs is logged here.

    Raises the InputError of the process that raised one first; the others are stopped then, and all of them where this
    process is interrupted.
    """
    queue = multiprocessing.get_context("spawn").Queue()
    listener = logging.handlers.QueueListener(queue, *logging.getLogger().handlers, respect_handler_level=True)
    listener.start()
    try:
        with _none_left_behind(), _same_environment():
            fabric.launch(_in_own_memory, _Door(), queue, torch.get_num_threads(), work, *given)
    except multiprocessing.ProcessRaisedException as error:
        raise _told_by(error) from error
    finally:
        listener.stop()


@contextlib.contextmanager
def _none_left_behind() -> Iterator[None]:
    """However this ends, no process that was started within goes on: it would train into files that are unlocked."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        started = set(multiprocessing.active_children()) - before
        for process in started:
            process.terminate()
        for process in started:
            process.join(GRACE_S)
            process.kill()


@contextlib.contextmanager
def _same_environment() -> Iterator[None]:
    """Lightning leaves its port in the environment, where the next training would take it for given."""
    before = os.environ.copy()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Door:
    """Sent ahead: as it arrives, ultralytics is imported our way, before the detector's arrival would import it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _ultralytics.prepare, ()


def _in_own_memory(fabric: Fabric, *sent: Any) -> None:
    """What torch sends to other processes lies in memory that they share: each trains a copy of its own."""
    _, queue, threads, work, *given = sent
    torch.set_num_threads(max(1, threads // fabric.world_size))
    given = copy.deepcopy(given)
    if fabric.is_global_zero:
        logging.getLogger().addHandler(logging.handlers.QueueHandler(queue))
        logging.getLogger("dcodp").setLevel(logging.INFO)
    work(fabric, *given)


def _told_by(error: multiprocessing.ProcessRaisedException) -> Exception:
    """The process' own exception where it says what is wrong with the input: all that arrives is its traceback."""
    kind, _, message = str(error).strip().splitlines()[-1].partition(": ")
    return InputError(message) if kind == f"{InputError.__module__}.{InputError.__qualname__}" else error
