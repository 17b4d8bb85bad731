"""Kills and worse to a small sweep at random moments, restarted each time; the records must equal undisturbed ones.

    python tests/workers/faults.py FOLDER --number 100 [--faults kill,full] [--within 25] [--seed 0] [--log FILE]

The sweep is three detectors x two criteria x two ratios. Each round starts with nothing but the data, and a fault
strikes at a random moment of the first seconds of each call of the command (`--within`), until a call comes to its end;
then the records, plans and weights are compared and a new round begins. The log has a line for each fault: round,
moment in seconds, what it was, what was at work. Faults:

    kill       SIGKILL to the command and all of its workers
    worker     SIGKILL to one of its processes alone, a worker or not
    terminate  SIGTERM to the command alone
    suspend    SIGSTOP to all, SIGCONT after a while; no restart
    second     the same command once more beside it; then SIGKILL to the first
    cut        SIGKILL to all, then an artefact is cut short at a random byte
    full       the disk with the results has no room until the command ends (needs root, which may mount one)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import sweeps

import dcodp.pipeline
import dcodp.show
from dcodp.commands import run
from dcodp.config import Config
from dcodp.identity import run_id
from dcodp.records import is_done, run_folder

CELLS = (*sweeps.THREE, "finetune.epochs=2", "train.epochs=2", "dataset.train_limit=8", "dataset.val_limit=2")
ARTEFACTS = ("*.safetensors", "*.json", "*.jsonl", "*.npz", "*.ckpt")


class Harness:
    """One folder, its undisturbed outcome, and the moments so far."""

    def __init__(self, folder: Path, seed: int, launcher: str, log: Path, within: float):
        self.folder, self.chance, self.log, self.within = folder, random.Random(seed), log, within
        self.words = (f"launcher={launcher}", *CELLS)
        self.wanted = self._undisturbed()
        self.number = 0

    def _undisturbed(self) -> dict[str, tuple]:
        """Computed twice: the first time brings the data, and tells what this process imports for all others. Nothing
        is computed here, since torch's threads would be missing in the processes that this one forks."""
        place = self.folder / "whole"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        assert self._start(place).wait() == 0, (place / "told.txt").read_text()
        for name in (place / "modules.txt").read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        shutil.rmtree(place / "results")
        assert self._start(place).wait() == 0, (place / "told.txt").read_text()
        return sweeps.outcome(place)

    def _arguments(self, place: Path) -> list[str]:
        return ["-m", *sweeps.SMALL, *sweeps.places(place), *self.words]

    def round(self, number: int, faults: list[str], most: int) -> None:
        place = self.folder / f"round-{number}"
        place.mkdir()
        shutil.copytree(self.folder / "whole" / "data", place / "data")
        with disk(place / "results") if "full" in faults else contextlib.nullcontext():
            self._round(place, number, faults, most)
        shutil.rmtree(place)

    def _round(self, place: Path, number: int, faults: list[str], most: int) -> None:
        while not self._call(place, number, self.chance.choice(faults) if self.number < most else None):
            pass
        found = sweeps.outcome(place)
        assert found == self.wanted, (number, {run: value[0] for run, value in found.items()})
        assert not list(place.rglob(".*.part")), number  # nothing half written is left

    def _call(self, place: Path, number: int, fault: str | None) -> bool:
        """One call of the command, which a fault may strike; True when it came to its end with all cells done."""
        process = self._start(place)
        moment = self.chance.uniform(0, self.within)
        try:
            process.wait(None if fault is None else moment)
        except TimeoutError:
            self.number += 1
            self._note(place, number, moment, fault)
            getattr(self, f"_{fault}")(process, place)
            process.wait()
        return process.returncode == 0

    def _start(self, place: Path) -> Forked:
        return Forked(place, self._arguments(place))

    def _note(self, place: Path, number: int, moment: float, fault: str | None) -> None:
        at_work = []
        for path in sorted(place.glob("results/*/*/progress.json")):
            told = {}
            with contextlib.suppress(FileNotFoundError):  # that job has just ended
                told = json.loads(path.read_text() or "{}")
            at_work.append(f"{path.parent.name}: {told.get('stage')} {told.get('epoch', '')}".strip())
        row = {"number": self.number, "round": number, "second": round(moment, 2), "fault": fault, "at_work": at_work}
        with self.log.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def _kill(self, process: Forked, place: Path) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    def _worker(self, process: Forked, place: Path) -> None:
        os.kill(self.chance.choice(members(process.pid)), signal.SIGKILL)
        if process.poll() is not None:  # without its head the others end by themselves
            os.killpg(process.pid, signal.SIGKILL)

    def _terminate(self, process: Forked, place: Path) -> None:
        os.kill(process.pid, signal.SIGTERM)

    def _suspend(self, process: Forked, place: Path) -> None:
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(self.chance.uniform(0, 3))
        os.killpg(process.pid, signal.SIGCONT)

    def _second(self, process: Forked, place: Path) -> None:
        other = self._start(place)
        time.sleep(self.chance.uniform(0, self.within))
        os.killpg(process.pid, signal.SIGKILL)
        other.wait()

    def _cut(self, process: Forked, place: Path) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        files = [path for kind in ARTEFACTS for path in place.glob(f"results/**/{kind}") if path.stat().st_size]
        if files:
            path = self.chance.choice(sorted(files))
            os.truncate(path, self.chance.randrange(path.stat().st_size))
            self._restore_or_delete(path, place)

    def _full(self, process: Forked, place: Path) -> None:
        filler = place / "results" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1 << 16))
        process.wait()
        filler.unlink()

    def _restore_or_delete(self, path: Path, place: Path) -> None:
        """What the command says is to be deleted, is."""
        for _ in range(4):
            process = self._start(place)
            process.wait()
            if process.returncode == 0:
                return
            shutil.rmtree(path.parent, ignore_errors=True)


class Forked:
    """The command in a process of its own that need not import what this one has; without the report at its end."""

    def __init__(self, place: Path, arguments: list[str]):
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os._exit(self._run(place, arguments))
        while os.getpgid(self.pid) != self.pid:  # until it can be killed with its workers
            time.sleep(0.001)

    def _run(self, place: Path, arguments: list[str]) -> int:
        os.setsid()
        told = os.open(place / "told.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.chdir(place)
        try:
            status = run.run_typed(arguments)
            (place / "modules.txt").write_text("\n".join(sorted(sys.modules)))
            return status
        except SystemExit as stopped:
            return int(stopped.code or 0)
        except BaseException:
            traceback.print_exc()
            return 70

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds: float | None = None) -> int:
        """Raises TimeoutError where it has not ended by then."""
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        while self.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def unshown(configs: Sequence[Config], experiments: Path) -> int:
    """In place of the report at the end: 1 where a cell is not done."""
    folders = [run_folder(Path(config.paths.results), run_id(config)) for config in configs]
    return int(not all(map(is_done, folders)))


@contextlib.contextmanager
def disk(place: Path) -> Iterator[None]:
    """A file system of its own at `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def members(group: int) -> list[int]:
    """The processes of a process group."""
    told = subprocess.run(["ps", "-e", "-o", "pid=,pgid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, pgid in (line.split() for line in told.splitlines()) if int(pgid) == group]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--faults", default="kill")
    parser.add_argument("--launcher", default="serial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=25, help="seconds from the start of a call")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    dcodp.show.show = unshown
    os.environ.update(sweeps.environment(YOLO_OFFLINE="1"))
    given.folder.mkdir(parents=True, exist_ok=True)
    harness = Harness(
        given.folder, given.seed, given.launcher, given.log or given.folder / "faults.jsonl", given.within
    )
    number = 0
    while harness.number < given.number:
        harness.round(number, given.faults.split(","), given.number)
        number += 1
        print(f"{harness.number} faults in {number} rounds: records, plans and weights as undisturbed", flush=True)


if __name__ == "__main__":
    main()
