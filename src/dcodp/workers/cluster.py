"""launcher=ray: tasks of a Ray cluster. Each is given what the tasks it comes after return, so Ray itself starts it
when they ended; tasks whose node vanishes are started again on another and go on from their checkpoints.

Hydra's own Ray launcher is no help: it knows no order of jobs, and asks for cloudpickle < 3 where joblib needs 3.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dcodp.errors import InputError
from dcodp.workers.jobs import Job
from dcodp.workers.work import do

log = logging.getLogger(__name__)
LOST = 137  # the exit status of a task whose worker vanished more often than max_retries


def run(jobs: Sequence[Job], settings: Mapping[str, Any]) -> dict[str, int]:
    """name → exit status. Raises InputError where the cluster cannot be reached or has no node for a cell."""
    ray = _ray()
    _connect(settings)
    gpus = _gpus(jobs, settings)
    try:
        _require_a_node(gpus, settings["num_cpus"])
        task = ray.remote(num_cpus=settings["num_cpus"], num_gpus=gpus, max_retries=settings["max_retries"])(do)
        refs: dict[str, Any] = {}
        for job in jobs:
            refs[job.name] = task.remote(job, *(refs[name] for name in job.after))
        return {name: _status(name, ref) for name, ref in refs.items()}
    finally:
        ray.shutdown()


def _ray() -> Any:
    """The package, an extra; by name, since type checkers need not have it."""
    return importlib.import_module("ray")


def _connect(settings: Mapping[str, Any]) -> None:
    ray = _ray()
    try:
        ray.init(
            address=settings["address"], log_to_driver=True, configure_logging=False,
            runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at hydra.launcher.address={settings['address']} ({str(error).splitlines()[0]}); start one "
            "with `ray start --head`, or leave the address out to use this machine"
        ) from error


def _gpus(jobs: Sequence[Job], settings: Mapping[str, Any]) -> float:
    """For each cell: what was asked for, else `devices` where the cluster has GPUs and device is not the CPU."""
    ray = _ray()
    if settings["num_gpus"] is not None:
        return settings["num_gpus"]
    config = jobs[0].configs[0]
    return config.devices if ray.cluster_resources().get("GPU") and config.device != "cpu" else 0


def _require_a_node(gpus: float, cpus: float) -> None:
    """Ray would wait for ever for a node that is large enough."""
    ray = _ray()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise InputError(
            f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs; lower hydra.launcher.num_cpus or num_gpus"
        )


def _status(name: str, ref: Any) -> int:
    ray = _ray()
    try:
        return int(ray.get(ref))
    except ray.exceptions.RayError as error:
        log.warning("%s: %s", name, str(error).strip().splitlines()[-1])
        return LOST
