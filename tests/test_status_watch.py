"""`dcodp status --watch` as people see it: in a terminal a table drawn anew, in a pipe a line for what is new."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from dcodp.config import Config, to_dict
from dcodp.records import Record, claim, run_folder, tell_progress, write_record
from dcodp.report import cell_status

WATCH = [sys.executable, "-c", "from dcodp.cli import main; main()", "status", "--watch", "--every", "0.1", "--results"]
PATIENCE_S = 60
SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def run(tmp_path):
    """A run that this process is at work on, in the second of ten epochs."""
    folder = run_folder(tmp_path, "one")
    with claim(folder):
        write_record(folder, Record("one", "running", to_dict(Config())))
        epoch(folder, 2)
        yield folder


def epoch(folder, number):
    told = {"stage": "finetuned", "stages_done": 2, "stages": 4, "device": "cuda:1"}
    tell_progress(folder.progress, {**told, "epoch": number, "epochs": 10, "seconds": 60.0})


class Terminal:
    """The command with this end of a terminal of 200 columns; `told` is what it has shown since it was last asked."""

    def __init__(self, results, piped):
        self.end, other = os.pipe() if piped else pty.openpty()
        environment = {**os.environ, "COLUMNS": "200", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(
            [*WATCH, str(results)], stdin=subprocess.DEVNULL, stdout=other, stderr=subprocess.PIPE, env=environment
        )
        os.close(other)

    def until(self, text):
        told, end = "", time.monotonic() + PATIENCE_S
        while text not in plain(told):
            assert time.monotonic() < end, (text, told)
            if select.select([self.end], [], [], 0.1)[0]:
                told += self._read()
        return plain(told)

    def stopped(self):
        """Ctrl-C: what else it shows, its words on the error stream, its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self):
        told, end = "", time.monotonic() + PATIENCE_S
        while more := self._read():
            told += more
            assert time.monotonic() < end, told
        _, error = self.process.communicate(timeout=PATIENCE_S)
        return told, error.decode(), self.process.returncode

    def _read(self):
        try:
            return os.read(self.end, 65536).decode(errors="replace")
        except OSError:  # a terminal whose other end is closed
            return ""


def plain(told):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)


@pytest.fixture
def watching(tmp_path):
    started = []

    def start(piped):
        started.append(Terminal(tmp_path, piped))
        return started[-1]

    yield start
    for terminal in started:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.end)


def test_the_table_follows_the_worker_until_ctrl_c(run, watching):
    terminal = watching(piped=False)
    told = terminal.until("epoch 2 of 10")
    assert "running" in told and "finetuned" in told and "cuda:1" in told and "0:08:00" in told
    epoch(run, 3)
    assert "0:07:00" in terminal.until("epoch 3 of 10") + terminal.until("1 running")
    told, error, status = terminal.stopped()
    assert (error, status) == ("", 130) and SHOW_CURSOR in told
    assert run.running.exists()  # the cell goes on


def test_a_pipe_is_told_what_is_new_until_ctrl_c(run, watching):
    terminal = watching(piped=True)
    assert terminal.until("\n").startswith("running\tone\t")
    epoch(run, 3)
    assert "epoch 3 of 10" in terminal.until("\n")
    assert terminal.stopped()[1:] == ("", 130)


@pytest.mark.parametrize("piped", [True, False])
def test_it_ends_by_itself_when_nothing_runs_or_is_missing(tmp_path, watching, piped):
    folder = run_folder(tmp_path, "one")
    with claim(folder):
        write_record(folder, Record("one", "running", to_dict(Config())))
        terminal = watching(piped)
        terminal.until("running")
        write_record(folder, Record("one", "done", to_dict(Config())))
    told, error, status = terminal.ended()
    assert "done" in told and (error, status) == ("", 0)


def test_another_look_reads_only_what_changed(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        write_record(run_folder(tmp_path, name), Record(name, "done", to_dict(Config())))
    watched, looked = cell_status.Watched(tmp_path), []
    real = cell_status.observe
    monkeypatch.setattr(cell_status, "observe", lambda folder: looked.append(folder.run_id) or real(folder))
    first = watched.cells()
    assert sorted(looked) == ["a", "b", "c"] and watched.cells() == first and len(looked) == 3
    failed = Record("b", "failed", to_dict(Config()), error="ValueError: it broke")
    write_record(run_folder(tmp_path, "b"), failed)
    assert [cell.status for cell in watched.cells()] == ["done", "failed", "done"] and looked[3:] == ["b"]
    with claim(run_folder(tmp_path, "b")):
        assert [cell.status for cell in watched.cells()] == ["done", "running", "done"]
        assert looked[4:] == ["b"]
        tell_progress(run_folder(tmp_path, "b").progress, {"stage": "dense", "stages": 4, "stages_done": 0})
        assert watched.cells()[1].stage == "dense"
    assert watched.cells()[1].status == "failed"
