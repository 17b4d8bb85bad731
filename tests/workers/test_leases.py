"""Leases: one holder at a time, the gone ones taken over and said, a sleeper's late write refused."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dcodp.errors import InputError
from dcodp.files import Busy, leased, leases, write_atomically
from dcodp.records import append_metrics, claim, is_alive, load_records, run_folder

HOLDER = """
import sys, time
from pathlib import Path
from dcodp.files import leases, leased
leases.LEASE_S, leases.BEAT_S = map(float, sys.argv[2:4])
if len(sys.argv) > 4:
    import socket
    socket.gethostname = lambda: sys.argv[4]
with leased(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "LEASE_S", 1.2)
    monkeypatch.setattr(leases, "BEAT_S", 0.3)


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lease of tmp_path/it, on this machine or as if on another."""
    started = []

    def start(*host: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, str(tmp_path / "it"), "1.2", "0.3", *host]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_there_is_one_holder_and_its_name_is_told(holder, tmp_path, quick):
    process = holder()
    with pytest.raises(Busy, match=f"process {process.pid} on"), leased(tmp_path / "it", "it", wait=False):
        pass


def test_a_holder_that_beats_is_never_taken_over(holder, tmp_path, quick):
    holder("elsewhere")
    end = time.monotonic() + 3 * leases.LEASE_S
    while time.monotonic() < end:
        with pytest.raises(Busy, match="on elsewhere"), leased(tmp_path / "it", "it", wait=False):
            pass
        time.sleep(0.05)


def test_a_killed_holder_of_this_machine_is_taken_over_at_once(holder, tmp_path, quick, caplog):
    process = holder()
    process.kill()
    process.wait()
    with caplog.at_level(logging.WARNING), leased(tmp_path / "it", "the net", wait=False):
        pass
    assert f"the net was held by process {process.pid}" in caplog.text and "taken over" in caplog.text


def test_a_holder_of_another_machine_that_vanishes_is_waited_for_and_taken_over(holder, tmp_path, quick, caplog):
    process = holder("elsewhere")
    process.kill()
    process.wait()
    start = time.monotonic()
    with caplog.at_level(logging.INFO), leased(tmp_path / "it", "the net"):
        assert leases.LEASE_S <= time.monotonic() - start < leases.LEASE_S + 5
    assert "waiting for process" in caplog.text and "taken over" in caplog.text


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_what_clocks_say_does_not_matter(holder, tmp_path, quick, monkeypatch, jump):
    """A clock that jumps a day takes no lease from a living holder, nor keeps one for a dead one."""
    process = holder("elsewhere")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    with pytest.raises(Busy), leased(tmp_path / "it", "it", wait=False):
        pass
    os.utime(tmp_path / "it" / ".lease", (real() + jump, real() + jump))  # by a server whose clock jumped
    with pytest.raises(Busy), leased(tmp_path / "it", "it", wait=False):
        pass
    process.kill()
    with leased(tmp_path / "it", "it"):
        pass


def test_who_was_asleep_writes_no_more(holder, tmp_path, quick):
    """The lease of this process is taken by another, as after a suspension; its writes are refused, not mixed in."""
    run = run_folder(tmp_path, "abc")
    with leased(run.path, "it"):
        append_metrics(run, {"epoch": 1})
        os.replace(_other(run.path, tmp_path), run.lease)
        with pytest.raises(InputError, match=r"process 1 on elsewhere has taken .* over"):
            write_atomically(run.record, "{}")
        with pytest.raises(InputError, match="was not written"):
            append_metrics(run, {"epoch": 2})
    assert run.lease.exists() and "elsewhere" in run.lease.read_text()  # the other's lease is left alone
    assert not run.record.exists() and run.metrics.read_text() == '{"epoch": 1}\n'
    write_atomically(run.record, "{}")  # who holds nothing is not asked


def _other(folder, elsewhere):
    text = (folder / ".lease").read_text().splitlines()
    fields = {"pid": "1", "host": "elsewhere", "token": "0" * 32}
    lines = [f"{key}={fields[key]}" if (key := line.partition("=")[0]) in fields else line for line in text]
    (elsewhere / "other").write_text("\n".join(lines) + "\n")
    return elsewhere / "other"


def test_a_suspended_process_is_fenced_off(tmp_path, quick):
    """SIGSTOP for longer than the lease, somebody else takes over, SIGCONT: the first one's write is refused."""
    program = HOLDER.replace(
        "    time.sleep(60)", "    time.sleep(1)\n    from dcodp.files import write_atomically\n"
        "    write_atomically(Path(sys.argv[1]) / 'late', 'late')"
    )  # fmt: skip
    command = [sys.executable, "-c", program, str(tmp_path / "it"), "1.2", "0.3", "elsewhere"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    process.send_signal(signal.SIGSTOP)
    with leased(tmp_path / "it", "it"):
        process.send_signal(signal.SIGCONT)
        _, told = process.communicate()
    assert process.returncode == 1 and b"was not written" in told and not (tmp_path / "it" / "late").exists()


def test_of_many_that_start_together_one_at_a_time_is_in(tmp_path, quick):
    """Read, wait, write back: an update is lost if two are in at once."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom dcodp.files import leased, leases\nleases.POLL_S = 0.01\n"
        "path = Path(sys.argv[1])\nfor _ in range(15):\n    with leased(path.parent / 'it', 'it'):\n"
        "        n = int(path.read_text())\n        time.sleep(0.002)\n        path.write_text(str(n + 1))\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(counter)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert counter.read_text() == "60"


def test_half_written_files_of_a_killed_holder_go(tmp_path):
    folder = tmp_path / "it"
    (folder / "finetune").mkdir(parents=True)
    for path in (folder / ".record.json.0a.part", folder / "finetune" / ".last.ckpt.0b.part", folder / "kept"):
        path.write_text("half")
    with leased(folder, "it"):
        assert {path.name for path in folder.rglob("*") if path.is_file()} == {"kept", ".lease"}


def test_a_waiting_claim_gets_the_run_when_it_is_free(tmp_path):
    run, order = run_folder(tmp_path, "abc"), []

    def second():
        with claim(run, wait=True):
            order.append("second")

    with claim(run):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.3)
        order.append("first")
    other.join()
    assert order == ["first", "second"] and not run.running.exists() and not run.lease.exists()


def test_a_read_only_folder_is_one_line(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(leases, "_acquired", refused)
    with pytest.raises(InputError, match=r"cannot write .*Read-only.*paths\.results"), claim(run_folder(tmp_path, "a")):
        pass


def test_liveness_elsewhere_goes_by_the_file_systems_clock(tmp_path, monkeypatch):
    run = run_folder(tmp_path, "abc")
    run.path.mkdir(parents=True)
    run.running.write_text(json.dumps({"pid": 1, "host": "elsewhere", "here": "elsewhere pid:[1]"}))
    run.lease.write_text("")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400)
    assert is_alive(run)
    assert load_records(tmp_path)[0].status == "running"
