"""The W&B mirror: the record's own numbers, never a reason for a run to fail."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dcodp.config import WandbConfig
from dcodp.records import Record, append_metrics, run_folder, write_record
from dcodp.tracking import Mirror, flatten, mirrored_numbers, sync

RECORD = Record(
    "abc123",
    "done",
    {"ratio": 0.5, "model": {"name": "yolov8n"}},
    stages=[
        {"name": "dense", "map50": 1 / 3, "ap_large": None, "per_class": {"cat": {"map50": 0.1}}, "parameters": 3157200}
    ],
    provenance={"seed": 0, "wall_seconds": {"dense": 1.5}},
)


class FakeRun:
    """Keeps what it is given; fails on demand."""

    def __init__(self, failure: Exception | None = None):
        self.failure, self.rows, self.summary, self.config, self.ended = failure, [], {}, Updates(), []

    def log(self, row):
        if self.failure:
            raise self.failure
        self.rows.append(row)

    def finish(self, exit_code):
        self.ended.append(exit_code)


class Updates(dict):
    def update(self, values, allow_val_change):
        super().update(values)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    def make(run: FakeRun) -> Mirror:
        monkeypatch.setattr(Mirror, "_start", lambda self: run)
        return Mirror(WandbConfig(), "abc123", "sweep", tmp_path, RECORD.config)

    return make


def test_flat_names():
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": [1]}) == {"a/b/c": 1, "e": [1]}
    assert mirrored_numbers(RECORD) == {
        "status": "done",
        "dense/map50": 1 / 3,
        "dense/per_class/cat/map50": 0.1,
        "dense/parameters": 3157200,
        "wall_seconds/dense": 1.5,
    }


def test_stages_prefix_the_epochs(mirror):
    run = FakeRun()
    here = mirror(run)
    here.log({"stage": "finetune", "epoch": 0, "losses": {"box": 1.5}})
    assert here.finish(RECORD)
    assert run.rows == [{"finetune/epoch": 0, "finetune/losses/box": 1.5}]
    assert run.ended == [0] and run.config == {"provenance": RECORD.provenance}


def test_failure_warns_once_and_stops_nothing(mirror):
    here = mirror(FakeRun(ConnectionResetError("service gone")))
    with pytest.warns(UserWarning, match="service gone") as caught:
        here.log({"epoch": 0})
        here.log({"epoch": 1})
        assert not here.finish(RECORD)
    assert len(caught) == 1


def test_defects_of_ours_are_not_swallowed(mirror):
    with pytest.raises(ZeroDivisionError):
        mirror(FakeRun(ZeroDivisionError())).log({"epoch": 0})


def test_disabled_does_not_import_wandb(tmp_path):
    code = """
import sys
from pathlib import Path
from dcodp.config import WandbConfig
from dcodp.records import Record
from dcodp.tracking import Mirror, sync
settings = WandbConfig(mode="disabled")
mirror = Mirror(settings, "abc", None, Path(sys.argv[1]))
mirror.log({"epoch": 0})
assert not mirror.finish(Record("abc")) and not sync(settings, Record("abc"), Path(sys.argv[1]))
assert "wandb" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == []


def test_sync_mirrors_once(tmp_path, monkeypatch):
    runs: list[FakeRun] = []
    monkeypatch.setattr(Mirror, "_start", lambda self: runs.append(FakeRun()) or runs[-1])
    folder = run_folder(tmp_path, "abc123")
    write_record(folder, RECORD)
    append_metrics(folder, {"stage": "train", "epoch": 0})
    assert sync(WandbConfig(), RECORD, tmp_path)
    assert not sync(WandbConfig(), RECORD, tmp_path)
    assert len(runs) == 1 and runs[0].rows == [{"train/epoch": 0}]
    assert sync(WandbConfig(mode="online"), RECORD, tmp_path)  # offline was not yet online
    assert not sync(WandbConfig(), RECORD, tmp_path)
    changed = Record(**{**vars(RECORD), "stages": [*RECORD.stages, {"name": "pruned", "map50": 0.1}]})
    assert sync(WandbConfig(), changed, tmp_path)


def test_real_offline_run_holds_the_records_numbers(tmp_path):
    wandb = pytest.importorskip("wandb")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Mirror(WandbConfig(), "left", None, tmp_path).log({"epoch": 0, "loss": 9.5})  # a cell that failed
        mirror = Mirror(WandbConfig(), "abc123", "sweep", tmp_path, RECORD.config)
        mirror.log({"stage": "train", "epoch": 0, "loss": 2.5})
        assert mirror.finish(RECORD)
    (written,) = (tmp_path / "wandb").glob("offline-run-*-abc123/*.wandb")
    inspect = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--summary", "--json", str(written)]
    told = json.loads(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout)
    assert told["config"]["ratio"] == 0.5 and told["config"]["provenance"]["seed"] == 0
    summary = {key: value for key, value in told["summary"].items() if not key.startswith("_")}
    assert summary == mirrored_numbers(RECORD) | {"train/epoch": 0, "train/loss": 2.5}
    assert wandb.run is None
