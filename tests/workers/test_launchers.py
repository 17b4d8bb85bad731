"""The same sweep by every launcher: identical plans, figures and weights."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweeps

HERE = Path(__file__).parent
SLURM = ("hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30")


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    done = sweeps.sweep(folder, *sweeps.THREE, "launcher=serial")
    assert done.returncode == 0, done.stderr
    outcome = sweeps.outcome(folder)
    assert len(outcome) == 12 and {status for status, *_ in outcome.values()} == {"done"}
    return outcome


@pytest.fixture
def slurm(tmp_path):
    """SLURM_CONF of a SLURM of one node, started here."""
    script = [str(HERE / "slurm_here.sh")]
    started = subprocess.run([*script, "start", str(tmp_path / "slurm")], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"no SLURM here: {started.stderr.strip()}")
    yield started.stdout.strip()
    subprocess.run([*script, "stop", str(tmp_path / "slurm")], check=True)


@contextlib.contextmanager
def two_nodes():
    """The address of a Ray cluster of two local nodes with a core each."""
    ray_utils = pytest.importorskip("ray.cluster_utils")
    cluster = ray_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    try:
        cluster.add_node(num_cpus=1, num_gpus=0)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_joblib_gives_the_same(serial, tmp_path):
    done = sweeps.sweep(tmp_path, *sweeps.THREE, "launcher=joblib")
    assert done.returncode == 0, done.stderr
    assert sweeps.outcome(tmp_path) == serial


@pytest.mark.slow
def test_slurm_gives_the_same(serial, slurm, tmp_path):
    done = sweeps.sweep(tmp_path, *sweeps.THREE, "launcher=slurm", *SLURM, SLURM_CONF=slurm)
    assert done.returncode == 0, done.stderr
    assert sweeps.outcome(tmp_path) == serial


@pytest.mark.slow
def test_ray_gives_the_same(serial, tmp_path):
    with two_nodes() as address:
        done = sweeps.sweep(tmp_path, *sweeps.THREE, "launcher=ray", f"hydra.launcher.address={address}")
    assert done.returncode == 0, done.stderr
    assert sweeps.outcome(tmp_path) == serial


@pytest.mark.slow
@pytest.mark.parametrize(("kinds", "number"), [("kill", 100), ("worker,terminate,suspend,second,cut,full", 100)])
def test_faults_at_random_moments_leave_the_same(tmp_path, kinds, number):
    """tests/workers/faults.py, as it was run for results/faults/."""
    command = [sys.executable, str(HERE / "faults.py"), str(tmp_path), "--number", str(number), "--faults", kinds]
    done = subprocess.run(command, env=sweeps.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_slurms_time_limit_puts_a_job_in_again(slurm, tmp_path):
    """What SLURM sends before the limit is sent to a job at work: it is queued again and ends with the same record."""
    words = [*sweeps.SMALL, *sweeps.places(tmp_path), "model=retinanet_tiny_test", "ratio=0.3,0.5", "train.epochs=40",
             "launcher=slurm", *SLURM]  # fmt: skip
    environment = sweeps.environment(SLURM_CONF=slurm)
    process = subprocess.Popen(sweeps.command("-m", *words), cwd=tmp_path, env=environment)
    last = wait_for(tmp_path, "results/cache/dense/*/last.ckpt", process)
    (job,) = subprocess.run(
        ["squeue", "--noheader", "--states=R", "--format=%A"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["scancel", "--signal=USR2", job], env=environment, check=True)
    assert process.wait() == 0 and last.exists()
    told = "".join(path.read_text() for path in (tmp_path / "results/hydra/.submitit").rglob("*_log.err"))
    assert "put in again" in told
    assert {status for status, *_ in sweeps.outcome(tmp_path).values()} == {"done"}


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> Path:
    while process.poll() is None:
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the sweep ended first")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A results folder of few megabytes: the sweep fails with the line, and goes on when there is room."""
    results = tmp_path / "results"
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(results)], check=True)
    try:
        full = sweeps.sweep(tmp_path, "model=retinanet_tiny_test", "ratio=0.3,0.5")
        assert full.returncode == 1 and "the disk is full" in full.stderr and "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(results)], check=True)
        again = sweeps.sweep(tmp_path, "model=retinanet_tiny_test", "ratio=0.3,0.5")
        assert again.returncode == 0, again.stderr
        subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
        refused = sweeps.sweep(tmp_path, "model=retinanet_tiny_test", "ratio=0.7,0.8")
        assert refused.returncode == 2 and "cannot write" in refused.stderr and "Traceback" not in refused.stderr
    finally:
        subprocess.run(["umount", "-l", str(results)], check=True)
