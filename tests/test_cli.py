"""`dcodp report` and `dcodp status`: from records alone, without torch, one line for bad input."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dcodp.cli import build_app, main
from dcodp.commands.run import job
from dcodp.config import Config, to_dict
from dcodp.records import Record, SweepCell, claim, run_folder, stages_from, write_record, write_sweep

ROOT = Path(__file__).resolve().parents[1]
BLOCK = {
    **{"map50": 0.6, "map50_95": 0.4, "ap75": 0.5, "ap_small": -1, "ap_medium": 0.3, "ap_large": 0.5},
    **{"per_class": {"circle": {"map50": 0.6, "map50_95": 0.4}}, "parameters": 3000000, "flops": 8000000000},
    **{"latency_ms": 40.0, "images": 300, "subset": False, "latency": {"threads": 1, "runs": 20, "device": "CPU"}},
}
BLOCK_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "ultralytics", "lightning"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Refuse())
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("torch was not blocked")
from dcodp.cli import main
sys.argv = ["dcodp", *sys.argv[1:]]
main()
"""


def record(run_id="one", status="done", **changes):
    blocks = {"dense": BLOCK, "pruned": BLOCK, "finetuned": BLOCK} | changes
    return Record(run_id, status, to_dict(Config()), stages_from(blocks))


@pytest.fixture
def results(tmp_path):
    write_record(run_folder(tmp_path, "one"), record())
    return tmp_path


def test_report_and_status_work_without_torch(results):
    def dcodp(*words):
        command = [sys.executable, "-c", BLOCK_TORCH, *words, "--results", str(results)]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=results)

    told = dcodp("report")
    assert "YOLOv8n on shapes" in told.stdout and "report.html" in told.stdout and told.stderr == ""
    assert "table1_voc2007" in (results / "report.html").read_text()  # dcodp brings it, where there is no ./experiments
    assert (results / "report.html").stat().st_size > 10_000
    assert {path.suffix for path in (results / "tables").iterdir()} == {".md", ".csv", ".tex"}
    assert {path.suffix for path in (results / "figures").iterdir()} == {".png", ".pdf"}
    assert dcodp("status").stdout == "done\tone\tyolov8n shapes dcodp 50 %, seed 0\t\n"


def test_status_tells_what_became_of_every_cell(results):
    failed = record("two", "failed", finetuned=None)
    failed.error = "ValueError: it\nbroke"
    write_record(run_folder(results, "two"), failed)
    write_record(run_folder(results, "three"), record("three", "running", pruned=None, finetuned=None))
    broken = run_folder(results, "four")
    broken.path.mkdir()
    broken.record.write_text("{")
    write_sweep(results, "table1", [SweepCell("one", ()), SweepCell("five", ("model=yolov7", "ratio=0.7"))])
    (results / "sweeps" / "torn.json").write_text("{")
    with claim(run_folder(results, "six")):
        told = CliRunner().invoke(build_app(), ["status", "--results", str(results)])
    assert told.exit_code == 0
    lines = {line.split("\t")[1]: line.split("\t") for line in told.stdout.splitlines()}
    assert {run: line[0] for run, line in lines.items()} == {
        **{"one": "done", "two": "failed", "three": "interrupted", "four": "failed", "five": "missing"},
        **{"six": "running", "": "failed"},
    }
    assert lines["two"][3] == "ValueError: it broke"
    assert "killed" in lines["three"][3] and "not whole JSON" in lines["four"][3] and "torn.json" in lines[""][3]
    assert lines["five"][2:] == ["model=yolov7 ratio=0.7", "asked for by sweep table1, not started"]
    assert lines["six"][3].startswith("process ")


@pytest.mark.parametrize("command", ["report", "status"])
def test_empty_results_are_one_line_on_stderr(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dcodp", command, "--results", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit) as left:
        main()
    told = capsys.readouterr()
    assert left.value.code == 2 and told.out == ""
    assert told.err.count("\n") == 1 and "start with: dcodp run\n" in told.err and "nothing" in told.err


def test_unwritable_output_is_one_line(results, monkeypatch, capsys):
    (results / "out").write_text("a file, no folder")
    monkeypatch.chdir(results)
    monkeypatch.setattr(sys, "argv", ["dcodp", "report", "--results", str(results), "--out", str(results / "out")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and capsys.readouterr().err.startswith("dcodp: cannot write")


def test_run_is_run_py(tmp_path):
    """Hydra's own flags, bad input, a sweep and a folder of one's own, by both names."""
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("name: mine\nvariant: s\n")
    dcodp = [sys.executable, "-c", "from dcodp.cli import main; main()", "run"]
    asked = {
        ("--config-dir", "own", "--cfg", "job", "model=mine"): (0, "name: mine"),
        ("-m", "model=mine,yours", "-cd", "own"): (2, "error: model=yours is not known; use one of faster_rcnn"),
    }
    for words, (status, told) in asked.items():
        both = [
            subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
            for command in (dcodp, [sys.executable, str(ROOT / "run.py")])
        ]
        assert {done.returncode for done in both} == {status} and told in both[0].stdout + both[0].stderr
        assert (both[0].stdout, both[0].stderr) == (both[1].stdout, both[1].stderr)
    assert not (tmp_path / "results").exists()


def test_help_is_hydras_and_exits_well():
    told = CliRunner().invoke(build_app(), ["run", "--help"])
    assert told.exit_code == 0 and sys.argv[0] != "dcodp run"


def test_launchers_send_the_job_by_its_name():
    """So that a process which another machine starts finds it where dcodp is installed."""
    assert pickle.loads(pickle.dumps(job)) is job
