"""Whether two versions of the project compute the same: smoke cells of every kind, compared down to the bit.

python benchmarks/same_results.py record OUT [--project CHECKOUT]   run the cells with the checkout's run.py
python benchmarks/same_results.py compare BEFORE AFTER              exit status 1 where anything differs

Compared are the plans, the scores (1e-12), the weights (bit by bit) and the metrics; run ids and times may differ,
and the later version may store more (tensors that are plain attributes of a net, for instance).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = ["schedule=smoke", "device=cpu", "threads=1", "wandb.mode=disabled", "evaluation.pictures=0"]
CRITERIA = ("dcodp", "dcodp_greedy", "chip", "rank", "hrank", "thinet", "lasso", "slimming", "taylor", "random",
            "l1", "l2", "fpgm", "lamp")  # fmt: skip
CASES: dict[str, list[str]] = {
    **{f"criterion_{name}": [f"importance={name}"] for name in CRITERIA},
    **{f"model_{name}": [f"model={name}"] for name in ("yolov7_tiny_test", "faster_rcnn_tiny_test", "retinanet")},
    "thinet_faster_rcnn": ["model=faster_rcnn_tiny_test", "importance=thinet"],
    "consumer": ["importance.aggregate=consumer"],
    "intralayer": ["interlayer=false"],
    "target": ["target=flops:0.5"],
    "target_parameters_rounded": ["target=parameters:0.4", "round_to=4", "importance=l1"],
    "global": ["scope=global"],
    "global_target": ["scope=global", "target=flops:0.5", "importance=l2"],
    "resumed": ["ratio=0.3", "finetune.epochs=3"],
}
GLOBAL = {"scope=global": "allocation=global"}  # how later versions spell it
INTERRUPTED = "resumed"  # killed after its first epoch of fine-tuning, then started again


def record(out: Path, project: Path) -> None:
    """Runs all cases into one results folder and notes which run and which scores each of them made."""
    out.mkdir(parents=True, exist_ok=True)
    noted = out / "cases.json"
    cases: dict[str, Any] = json.loads(noted.read_text()) if noted.exists() else {}
    for name in track(CASES, description="cells"):
        if name in cases:
            continue
        before = _folders(out)
        if name == INTERRUPTED:
            _run(out, project, CASES[name], stop_at="runs/*/finetune/last.ckpt")
        _run(out, project, CASES[name])
        new = {kind: sorted(after - before[kind]) for kind, after in _folders(out).items()}
        cases[name] = {"run": new["runs"][0], "scores": new["cache/scores"]}
        noted.write_text(json.dumps(cases, indent=1))


def _folders(out: Path) -> dict[str, set[str]]:
    kinds = ("runs", "cache/scores")
    return {kind: {p.name for p in (out / kind).glob("*") if p.is_dir()} for kind in kinds}


def _run(out: Path, project: Path, overrides: list[str], stop_at: str | None = None) -> None:
    spelled = overrides
    if (project / "conf" / "allocation").is_dir():
        spelled = [GLOBAL.get(o, o) for o in overrides]
    command = [sys.executable, "run.py", *ALWAYS, *spelled, f"paths.results={out.resolve()}"]
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    there = set(out.glob(stop_at)) if stop_at else set()
    with subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    ) as job:
        while job.poll() is None:
            if stop_at and set(out.glob(stop_at)) - there:
                os.killpg(job.pid, signal.SIGKILL)
                return
            time.sleep(0.05)
    if job.returncode or stop_at:
        raise SystemExit(f"{' '.join(command)} ended with {job.returncode}")


def compare(before: Path, after: Path) -> list[str]:
    """One line for everything that differs."""
    cases = [json.loads((folder / "cases.json").read_text()) for folder in (before, after)]
    wrong = [f"{name}: only in one" for name in cases[0].keys() ^ cases[1].keys()]
    for name in cases[0].keys() & cases[1].keys():
        old, new = (folder / "runs" / case[name]["run"] for folder, case in zip((before, after), cases, strict=True))
        wrong += [f"{name}: {what}" for what in _differences(old, new)]
        pairs = zip(cases[0][name]["scores"], cases[1][name]["scores"], strict=True)
        for mine, theirs in pairs:
            files = (f / "cache" / "scores" / k / "scores.safetensors" for f, k in ((before, mine), (after, theirs)))
            wrong += [f"{name}: scores: {what}" for what in _tensors_differ(*files, tolerance=1e-12)]
    return sorted(wrong)


def _differences(old: Path, new: Path) -> list[str]:
    plans = [json.loads((folder / "plan.json").read_text()) for folder in (old, new)]
    wrong = [f"plan: {key}" for key in ("keep", "shapes", "attributes", "groups") if plans[0][key] != plans[1][key]]
    wrong += [f"weights: {what}" for what in _tensors_differ(old / "model.safetensors", new / "model.safetensors")]
    records = [json.loads((folder / "record.json").read_text()) for folder in (old, new)]
    for stage in ("dense", "pruned", "finetuned"):
        a, b = ({k: v for k, v in r[stage].items() if "latency" not in k and k != "seconds"} for r in records)
        wrong += [f"{stage}: {key}" for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
    if (records[0]["status"], records[1]["status"]) != ("done", "done"):
        wrong.append("not done")
    return wrong


def _tensors_differ(old: Path, new: Path, tolerance: float = 0.0) -> list[str]:
    a, b = _tensors(old), _tensors(new)
    wrong = [f"{name} is gone" for name in a.keys() - b.keys()]
    for name in a.keys() & b.keys():
        if a[name].shape != b[name].shape:
            wrong.append(f"{name}: {tuple(a[name].shape)} and {tuple(b[name].shape)}")
        elif not torch.equal(a[name], b[name]):
            gap = float((a[name].double() - b[name].double()).abs().max() / (1e-300 + a[name].double().abs().max()))
            if gap > tolerance or not tolerance:
                wrong.append(f"{name}: {gap:.1e} relative")
    return wrong


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--project", type=Path, default=ROOT)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record(given.out, given.project.resolve())
        return 0
    wrong = compare(given.before, given.after)
    print("\n".join(wrong) or f"the same in all {len(CASES)} cells")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
