"""launcher=slurm against a stand-in whose jobs start before sbatch returns. (The real one: test_launchers.py.)"""

import os
import stat
import sys

import pytest

from dcodp.config import Config
from dcodp.errors import InputError
from dcodp.workers import slurm
from dcodp.workers.jobs import Job

# As slurmd: who has no folder for the log has no job. The work itself waits for submitit, as its own code does.
SBATCH = """
import os, re, subprocess, sys
from pathlib import Path
text = Path(sys.argv[1]).read_text()
given = dict(re.findall(r"^#SBATCH --([\\w-]+)=(.*)$", text, re.M))
number = str(len(list(Path(os.environ["QUEUE"]).iterdir())) // 2 + 1)
(Path(os.environ["QUEUE"]) / f"{number}.dependency").write_text(given.get("dependency", ""))
tasks = range(int(given["array"].partition("%")[0].partition("-")[2]) + 1) if "array" in given else [None]
started = []
for task in tasks:
    name = number if task is None else f"{number}_{task}"
    def called(path):
        return path.replace("%A_%a", name).replace("%j", name).replace("%t", "0")
    try:
        streams = [open(called(given[kind]), "ab") for kind in ("output", "error")]
    except FileNotFoundError:
        continue
    started.append(name)
    environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                   "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "here"}
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}
    command = text[text.index("# command"):]
    subprocess.Popen(["bash", "-c", command], stdout=streams[0], stderr=streams[1], env=environment)
(Path(os.environ["QUEUE"]) / f"{number}.started").write_text(" ".join(started))
print("Submitted batch job", number)
"""
SRUN = """
import os, sys
words = sys.argv[1:]
os.execvp(sys.executable, [sys.executable, *words[words.index("-u"):]])
"""
SQUEUE = """
import os
from pathlib import Path
print(*(path.read_text() for path in Path(os.environ["QUEUE"]).glob("*.started")))
"""
SETTINGS = {"submitit_folder": "SET BY THE TEST", "timeout_min": 5, "max_num_timeout": 1, "name": "dcodp"}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of the stand-in's queue; `sbatch`, `srun` and `squeue` are on the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "queue").mkdir()
    for name, program in {"sbatch": SBATCH, "srun": SRUN, "squeue": SQUEUE}.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(tmp_path / "queue"))
    monkeypatch.setattr(slurm, "POLL_S", 0.1)
    return tmp_path / "queue"


def job(name, *after):
    """It fails at once, with status 2: the folder that it is to start in is not there."""
    return Job(name, "cell", (Config(),), after, "launch", "/where/no/folder/is")


def test_jobs_that_start_at_once_have_a_folder_for_their_logs(cluster, tmp_path):
    folder = tmp_path / "results" / ".submitit"
    statuses = slurm.run([job("a"), job("b"), job("c", "a", "b")], {**SETTINGS, "submitit_folder": f"{folder}/%j"})
    assert {path.name: path.read_text() for path in cluster.iterdir()} == {
        "1.dependency": "", "1.started": "1_0 1_1", "2.dependency": "afterany:1_0:1_1", "2.started": "2",
    }  # fmt: skip
    assert statuses == {"a": 2, "b": 2, "c": 2}
    logs = [path.read_text() for path in folder.rglob("*_log.err")]
    assert len(logs) == 3 and all("error: /where/no/folder/is" in log for log in logs)


def test_cells_share_a_job(cluster, tmp_path):
    """And its start; what they share is a job of its own, which all wait for."""
    shared = Job("s", "scores", (Config(),), (), "launch", "/where/no/folder/is")
    settings = {**SETTINGS, "submitit_folder": f"{tmp_path}/%j", "cells_per_job": 2}
    assert slurm.run([shared, *(job(name, "s") for name in "abc")], settings) == dict.fromkeys("sabc", 2)
    assert {path.name: path.read_text() for path in cluster.iterdir()} == {
        "1.dependency": "", "1.started": "1", "2.dependency": "afterany:1", "2.started": "2_0 2_1",
    }  # fmt: skip
    first, second = (path.read_text().count("error:") for path in sorted(tmp_path.rglob("2_*_log.err")))
    assert (first, second) == (2, 1)
    with pytest.raises(InputError, match=r"cells_per_job=0; give 1 or more"):
        slurm.run([job("a")], {**settings, "cells_per_job": 0})


def test_what_an_earlier_slurm_left_under_the_same_numbers_is_not_taken(cluster, tmp_path):
    settings = {**SETTINGS, "submitit_folder": f"{tmp_path}/%j"}
    slurm.run([job("a")], settings)
    (result,) = tmp_path.rglob("1_0_result.pkl")
    assert result.parent == tmp_path / "launch"
    for path in cluster.iterdir():
        path.unlink()
    later = Job("a", "cell", (Config(),), (), "later", "/where/no/folder/is")
    assert slurm.run([later], settings) == {"a": 2}
    assert (tmp_path / "later" / "1_0_result.pkl").exists()


def test_no_slurm_and_no_folder_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="SLURM takes no jobs here"):
        slurm.run([job("a")], {**SETTINGS, "submitit_folder": f"{tmp_path}/%j"})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        slurm.run([job("a")], {**SETTINGS, "submitit_folder": f"{tmp_path}/file/%j"})
