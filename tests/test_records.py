"""Records: whole or not at all, honest about killed runs, held by one process at a time."""

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from dcodp.errors import InputError
from dcodp.files import write_atomically, writing
from dcodp.records import (
    STAGES,
    Record,
    SweepCell,
    append_metrics,
    claim,
    collect_provenance,
    is_alive,
    is_done,
    load_records,
    read_metrics,
    read_record,
    read_sweeps,
    recording,
    run_folder,
    stages_from,
    timed,
    write_record,
    write_sweep,
)


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path, "abc")


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_round_trip(run):
    record = Record("abc", "done", {"ratio": 0.5})
    record.add("dense", {"map50": 0.1 + 0.2, "per_class": {"cat": {"map50": 0.3}}}, seconds=1.5)
    write_record(run, record)
    assert read_record(run) == record
    assert [path.name for path in run.path.iterdir()] == ["record.json"]  # no temporary file is left


def test_record_has_the_contract_keys(run):
    write_record(run, Record("abc"))
    keys = {"run_id", "status", "config", "stages", *STAGES, "provenance", "error", "notes"}
    assert set(json.loads(run.record.read_text())) == keys


def test_values_of_numpy_are_written_and_not_a_number_is_named(run):
    write_record(
        run,
        Record(
            "abc", stages=stages_from({"dense": {"map50": np.float32(0.5), "ap75": float("nan"), "flops": np.int64(7)}})
        ),
    )
    record = read_record(run)
    assert record.dense == {"map50": 0.5, "ap75": None, "flops": 7}
    assert record.notes == ["dense.ap75 was nan"]


def test_full_disk_keeps_the_old_record(run, monkeypatch):
    write_record(run, Record("abc", "running", notes=["old"]))
    monkeypatch.setattr(writing.os, "fsync", full_disk)
    with pytest.raises(InputError, match="disk is full"):
        write_record(run, Record("abc", "done", notes=["new"]))
    assert read_record(run).notes == ["old"]
    assert len(list(run.path.iterdir())) == 1


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*paths\.results"):
        write_atomically(tmp_path / "file" / "x.json", "{}")


@pytest.mark.parametrize(
    "text",
    ['{"run_id": "abc", "sta', "", "[]", '{"run_id": "abc"}', "\xff\xfe"],
    ids=["torn", "empty", "list", "keys", "bytes"],
)
def test_broken_record_is_reported_not_raised(run, tmp_path, text):
    run.path.mkdir(parents=True)
    run.record.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"record\.json"):
        read_record(run)
    (record,) = load_records(tmp_path)
    assert record.status == "broken" and record.error is not None and "record.json" in record.error


def test_records_of_the_first_format_are_read(run):
    write_record(run, Record("abc", "done"))
    tree = json.loads(run.record.read_text())
    del tree["stages"]
    run.record.write_text(json.dumps(tree | {"dense": {"map50": 0.5}, "finetuned": {"map50": 0.4}}))
    record = read_record(run)
    assert [stage["name"] for stage in record.stages] == ["dense", "finetuned"]
    assert (record.dense, record.pruned, record.finetuned) == ({"map50": 0.5}, None, {"map50": 0.4})
    run.record.write_text(json.dumps(tree | {"dense": {"map50": "high"}}))
    with pytest.raises(InputError, match="dense is not as a record has it"):
        read_record(run)


def test_of_several_steps_the_last_stage_of_a_name_counts(run):
    record = Record("abc", "done")
    for number in (1, 2):
        for name in ("pruned", "finetuned"):
            record.add(name, {"map50": number / 10}, seconds=float(number))
    write_record(run, record)
    assert read_record(run) == record
    assert json.loads(run.record.read_text())["finetuned"] == {"map50": 0.2, "seconds": 2.0}


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"status": "finished"},
            {"run_id": "xyz"},
            {"stages": "all"},
            {"stages": ["dense"]},
            {"stages": [{"map50": 1.0}]},
        ),
        {"stages": [{"name": "dense", "map50": "high"}]},
        {"stages": [{"name": "dense", "per_class": {"cat": 0.5}}]},
    ],
)
def test_wrong_content_is_refused(run, change):
    write_record(run, Record("abc"))
    run.record.write_text(json.dumps(json.loads(run.record.read_text()) | change))
    with pytest.raises(InputError):
        read_record(run)


def test_recording_ends_done_failed_or_interrupted(tmp_path):
    def end(name, error):
        run = run_folder(tmp_path, name)
        with recording(run, Record(name)) as record:
            assert read_record(run).status == "running" and is_alive(run)
            record.add("dense", {"map50": 0.5})
            if error:
                raise error
        return run

    assert is_done(end("good", None))
    for name, error, status, line in (
        ("bad", ValueError("two\nlines"), "failed", "ValueError: two lines"),
        ("input", InputError("ratio=2 is wrong"), "failed", "ratio=2 is wrong"),
        ("stopped", KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    ):
        with pytest.raises(type(error)):
            end(name, error)
        record = read_record(run_folder(tmp_path, name))
        assert (record.status, record.error, record.dense) == (status, line, {"map50": 0.5})


def test_the_first_error_is_raised_when_the_disk_is_full_too(run, monkeypatch):
    with pytest.raises(RuntimeError, match="the real one") as caught, recording(run, Record("abc")):
        monkeypatch.setattr(writing.os, "fsync", full_disk)
        raise RuntimeError("the real one")
    assert "disk is full" in caught.value.__notes__[0]


WORKER = """
import sys, time
from pathlib import Path
from dcodp.records import Record, recording, run_folder
with recording(run_folder(Path(sys.argv[1]), "abc"), Record("abc")):
    print("working", flush=True)
    time.sleep(60)
"""


def test_a_killed_run_is_interrupted_and_can_be_taken_over(run, tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"working\n"
    assert load_records(tmp_path)[0].status == "running"
    with pytest.raises(InputError, match=f"process {worker.pid}"), claim(run):
        pass
    worker.kill()
    worker.wait()
    worker.stdout.close()
    (record,) = load_records(tmp_path)
    assert record.status == "interrupted" and "killed" in (record.error or "")
    with claim(run):
        assert is_alive(run)
    assert not is_alive(run)


def test_a_process_on_another_host_lives_as_long_as_it_beats(run):
    run.path.mkdir(parents=True)
    run.running.write_text(json.dumps({"pid": 1, "host": "elsewhere", "process_start": "0"}))
    run.lease.write_text("")
    assert is_alive(run)
    long_ago = time.time() - 3600
    os.utime(run.lease, (long_ago, long_ago))
    assert not is_alive(run)


def test_a_reused_process_number_is_not_the_run(run):
    with claim(run):
        info = json.loads(run.running.read_text())
        run.running.write_text(json.dumps(info | {"process_start": "something else"}))
        assert not is_alive(run)


def test_folder_without_a_record(run, tmp_path):
    run.path.mkdir(parents=True)
    (tmp_path / "runs" / ".cache").mkdir()
    (record,) = load_records(tmp_path)
    assert record.status == "interrupted" and "before it wrote a record" in (record.error or "")
    assert load_records(tmp_path / "nothing") == []


def test_metrics_lose_only_a_torn_line(run):
    append_metrics(run, {"epoch": 0, "loss": np.float64(1.5)})
    with run.metrics.open("a") as stream:
        stream.write('{"epoch": 1, "lo')
    assert read_metrics(run) == [{"epoch": 0, "loss": 1.5}]
    append_metrics(run, {"epoch": 1, "loss": float("inf")})
    assert read_metrics(run) == [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": None}]


def test_metrics_survive_a_full_disk(run, monkeypatch):
    append_metrics(run, {"epoch": 0})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match="disk is full"):
        append_metrics(run, {"epoch": 1})
    assert run.metrics.read_text() == '{"epoch": 0}\n'


def test_damaged_metrics_are_refused(run):
    run.path.mkdir(parents=True)
    run.metrics.write_text('{"epoch": 0}\nrubbish\n{"epoch": 2}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged"):
        read_metrics(run)


def test_what_many_records_have_in_common_is_in_memory_once(tmp_path):
    coupling = {"stem": {"channels": 16, "layers": ["stem"]}}
    for name, pruning in {"a": {"coupling": coupling}, "b": {"coupling": coupling}, "c": "odd", "d": {}}.items():
        write_record(run_folder(tmp_path, name), Record(name, "done", provenance={"pruning": pruning}))
    a, b, c, d = load_records(tmp_path)
    assert a.provenance["pruning"]["coupling"] is b.provenance["pruning"]["coupling"]
    assert a.provenance["pruning"] == {"coupling": coupling} and c.provenance["pruning"] == "odd"
    assert d.provenance["pruning"] == {}


def test_sweep_manifests_grow_and_tell_damage(tmp_path):
    write_sweep(tmp_path, "one", [SweepCell("a", ("ratio=0.2",))])
    path = write_sweep(tmp_path, "one", [SweepCell("a", ("ratio=0.2",)), SweepCell("b", ())])
    assert json.loads(path.read_text()) == {
        "sweep": "one",
        "cells": [{"run_id": "a", "overrides": ["ratio=0.2"]}, {"run_id": "b", "overrides": []}],
    }
    (tmp_path / "sweeps" / "two.json").write_text('{"sweep": "two"}')
    one, two = read_sweeps(tmp_path)
    assert [cell.run_id for cell in one.cells] == ["a", "b"] and one.error is None
    assert two.cells == () and "not a sweep manifest" in (two.error or "")


def test_provenance_names_code_libraries_and_time():
    provenance = collect_provenance(3, data_fingerprint={"val": "feed"})
    assert provenance["seed"] == 3 and provenance["data_fingerprint"] == {"val": "feed"}
    assert provenance["code"]["version"] and provenance["libraries"]["torch"] and provenance["device"]
    record = Record("abc", provenance=provenance)
    for _ in range(2):
        with timed(record, "dense"):
            time.sleep(0.01)
    assert 0.02 <= record.provenance["wall_seconds"]["dense"] < 5


def test_git_describe_only_of_a_tracked_file(tmp_path):
    from dcodp.records.provenance import git_describe

    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    for name in ("tracked.py", "installed.py"):
        (tmp_path / name).write_text("")
    git("init")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    git("tag", "v1")
    assert git_describe(tmp_path / "tracked.py") == "v1"
    (tmp_path / "tracked.py").write_text("changed")
    assert git_describe(tmp_path / "tracked.py") == "v1-dirty"
    assert git_describe(tmp_path / "installed.py") is None
