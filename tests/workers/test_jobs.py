"""A sweep as jobs: what cells share comes first, once; workers that vanish lose nothing; failures are said."""

import os
import signal
import time
from pathlib import Path

import pytest

from dcodp.compose import cells, register, unfinished
from dcodp.config import Config
from dcodp.errors import InputError
from dcodp.identity import run_id
from dcodp.records import Record, SweepCell, load_jobs, load_records, read_record, run_folder, write_record, write_sweep
from dcodp.show import announce
from dcodp.workers import launching, pool, serial, work
from dcodp.workers.jobs import Job, jobs_of

CONF = Path(__file__).resolve().parents[2] / "conf"
register()


def configs(*overrides: str) -> list[Config]:
    return [config for _, config in cells(CONF, overrides)]


def job(name: str, *after: str, kind: str = "cell", folder: str = ".") -> Job:
    return Job(name, kind, (Config(),), after, "launch", folder)


def test_what_cells_share_comes_before_them_and_once():
    jobs = jobs_of(configs("model=yolov8n,yolov7", "importance=dcodp,l1", "ratio=0.3,0.5"))
    assert [one.kind for one in jobs] == ["dense"] * 2 + ["scores"] * 2 + ["cell"] * 8
    names = [one.name for one in jobs]
    assert len(set(names)) == 12 and all(
        names.index(name) < names.index(one.name) for one in jobs for name in one.after
    )
    for scores in jobs[2:4]:
        assert [config.importance.name for config in scores.configs] == ["dcodp", "l1"]
        assert {config.model.name for config in scores.configs} == {
            jobs[names.index(scores.after[0])].configs[0].model.name
        }
    assert all(one.after[0].startswith("scores-") for one in jobs[4:])


def test_a_cell_that_shares_nothing_is_alone():
    jobs = jobs_of(configs("seed=0,1"))
    assert [one.kind for one in jobs] == ["cell", "cell"] and not any(one.after for one in jobs)


def test_the_same_cell_twice_is_one_job():
    assert len(jobs_of([*configs(), *configs()])) == 1


def test_different_calibrations_share_the_dense_net_alone():
    jobs = jobs_of(configs("importance.images=64,128"))
    assert [one.kind for one in jobs] == ["dense", "cell", "cell"]
    assert {one.after for one in jobs[1:]} == {(jobs[0].name,)}


def test_repairs_and_allocations_are_looked_up_with_the_scores():
    jobs = jobs_of(configs("repair=none,least_squares", "ratio=0.3,0.5", "method=strong"))
    (scores,) = [one for one in jobs if one.kind == "scores"]
    assert [config.repair.name for config in scores.configs] == ["none", "least_squares"]


def marked(one: Job) -> int:
    """Stands for `do`: leaves a line when it starts and when it ends; a job named kill-… kills its process once, the
    first named c… waits for the other worker, which may take its time to come up."""
    told = Path(one.folder) / "told"
    with told.open("a") as stream:
        stream.write(f"start {one.name}\n")
    time.sleep(0.05)
    late = time.monotonic() + 120
    while one.name.startswith("c") and told.read_text().count("start c") < 2 and time.monotonic() < late:
        time.sleep(0.05)
    if one.name.startswith("kill") and told.read_text().count(f"start {one.name}\n") < int(one.name[-1]):
        os.kill(os.getpid(), signal.SIGKILL)
    with told.open("a") as stream:
        stream.write(f"end {one.name}\n")
    return 0


def run_pool(jobs, monkeypatch):
    monkeypatch.setattr(pool, "do", marked)
    return pool.run(jobs, {"n_jobs": 2})


def test_the_pool_keeps_the_order_and_its_size(tmp_path, monkeypatch):
    folder = str(tmp_path)
    jobs = [
        job("a", folder=folder),
        job("b", "a", folder=folder),
        *(job(f"c{i}", "b", folder=folder) for i in range(4)),
    ]
    assert run_pool(jobs, monkeypatch) == dict.fromkeys(["a", "b", "c0", "c1", "c2", "c3"], 0)
    lines = (tmp_path / "told").read_text().splitlines()
    assert lines[:4] == ["start a", "end a", "start b", "end b"]
    at_work = [sum(1 if line.startswith("start") else -1 for line in lines[: n + 1]) for n in range(len(lines))]
    assert max(at_work) == 2


def test_a_worker_that_vanishes_is_replaced_and_its_job_done(tmp_path, monkeypatch, caplog):
    folder = str(tmp_path)
    ended = run_pool([job("kill-2", folder=folder), job("b", "kill-2", folder=folder)], monkeypatch)
    assert ended == {"kill-2": 0, "b": 0} and "the worker of kill-2 vanished; it is started again" in caplog.text


def test_a_job_whose_workers_always_vanish_is_given_up(tmp_path, monkeypatch, caplog):
    ended = run_pool([job("kill-9", folder=str(tmp_path)), job("b", folder=str(tmp_path))], monkeypatch)
    assert ended["kill-9"] == pool.LOST and ended["b"] == 0
    assert (tmp_path / "told").read_text().count("start kill-9") == pool.ATTEMPTS


def quick(folder: Path, *overrides: str) -> list[Config]:
    """Cells of nets that are neither trained nor fine-tuned."""
    few = ["schedule=smoke", "image_size=64", "dataset.generate_train=4", "dataset.generate_val=2", "device=cpu",
           "dataset.generate_size=96", "train.epochs=0", "finetune.epochs=0", "model=retinanet_tiny_test",
           "importance.images=2", "importance.batch=1", "evaluation.latency_runs=1", "wandb.mode=disabled",
           "evaluation.pictures=1", f"paths.data={folder / 'data'}", f"paths.results={folder / 'results'}"]  # fmt: skip
    return configs(*few, *overrides)


SERIAL = {"_target_": next(target for target, name in launching.RUNNERS.items() if name == "serial")}


def test_cells_find_what_they_share(tmp_path, monkeypatch):
    asked = quick(tmp_path, "ratio=0.3", "importance=l1,dcodp")
    statuses = launching.run_sweep(asked, SERIAL)
    assert list(statuses.values()) == [0] * 4
    assert [record.status for record in load_records(tmp_path / "results")] == ["done"] * 2
    assert [record.run_id.partition("-")[0] for record in load_jobs(tmp_path / "results")] == ["dense", "scores"]
    monkeypatch.setattr("dcodp.pipeline.calibrating.gather", None)  # would fail if anything were looked at again
    assert list(launching.run_sweep(quick(tmp_path, "ratio=0.4", "importance=l1,dcodp"), SERIAL).values()) == [0] * 4


def test_cells_are_not_started_on_what_failed_a_moment_ago(tmp_path, monkeypatch):
    def broken(*_):
        raise InputError("the loss is not finite; lower the learning rate")

    calls = []
    monkeypatch.setattr("dcodp.pipeline.running.share", broken)
    monkeypatch.setattr("dcodp.pipeline.running.run_stages", lambda cell: calls.append(cell))
    asked = quick(tmp_path, "ratio=0.3,0.5")
    assert set(launching.run_sweep(asked, SERIAL).values()) == {2} and not calls
    for record in load_records(tmp_path / "results"):
        assert record.status == "failed" and "which it shares with other cells, failed" in (record.error or "")
        assert "loss is not finite" in (record.error or "")


def test_a_folder_that_a_worker_lacks_is_one_line(tmp_path, capsys):
    assert work.do(job("a", folder=str(tmp_path / "elsewhere"))) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and "share that folder" in told and told.count("\n") == 1


def test_missing_data_are_said_before_the_first_job(tmp_path, monkeypatch):
    monkeypatch.setattr(serial, "do", None)  # would fail if it were called
    with pytest.raises(InputError, match=r"paths\.data="):
        launching.run_sweep(configs("dataset=voc2007", f"paths.data={tmp_path / 'none'}", "ratio=0.3,0.5"), SERIAL)


def test_sigterm_is_an_orderly_stop():
    with pytest.raises(SystemExit) as stopped, work.terminable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_of_the_launcher_stays():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with work.terminable():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_resume_takes_what_is_not_done_and_not_at_work(tmp_path):
    place = f"paths.results={tmp_path}"
    asked = cells(CONF, ["ratio=0.1,0.2,0.3,0.4", place])
    ids = [run_id(config) for _, config in asked]
    write_sweep(tmp_path, "one", [SweepCell(i, tuple(words)) for i, (words, _) in zip(ids, asked, strict=True)])
    write_record(run_folder(tmp_path, ids[0]), Record(ids[0], "done"))
    write_record(run_folder(tmp_path, ids[1]), Record(ids[1], "failed", error="out of memory"))
    write_record(run_folder(tmp_path, ids[2]), Record(ids[2], "running"))  # of a process that is gone
    left = unfinished(CONF, [place, "device=cpu"])
    assert [run_id(config) for _, config in left] == ids[1:] and {config.device for _, config in left} == {"cpu"}
    with pytest.raises(InputError, match="one value per key"):
        unfinished(CONF, [place, "ratio=0.1,0.2"])
    for i in ids:
        write_record(run_folder(tmp_path, i), Record(i, "done"))
    with pytest.raises(InputError, match="every cell of the 1 sweeps"):
        unfinished(CONF, [place])


def test_a_sweep_is_one_group_at_wandb(tmp_path):
    place = f"paths.results={tmp_path}"
    groups = {config.wandb.group for _, config in announce(cells(CONF, ["ratio=0.1,0.2", place]))}
    assert len(groups) == 1 and str(groups.pop()).startswith("sweep-")
    assert {config.wandb.group for _, config in announce(cells(CONF, ["ratio=0.1", place]))} == {None}
    named = announce(cells(CONF, ["ratio=0.1,0.2", place, "wandb.group=mine"]))
    assert {config.wandb.group for _, config in named} == {"mine"}


def test_one_record_of_a_cell_that_two_sweeps_ask_for(tmp_path):
    """The second call waits for the first and finds the record; nothing is computed twice."""
    import threading

    from dcodp.pipeline import run_cell

    (config,) = quick(tmp_path)
    records = []
    calls = [threading.Thread(target=lambda: records.append(run_cell(config, wait=True))) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert [record.status for record in records] == ["done", "done"]
    log = (tmp_path / "results" / "runs" / run_id(config) / "log.txt").read_text()
    assert log.count(" on cpu") == 1 and read_record(run_folder(tmp_path / "results", run_id(config))).status == "done"
