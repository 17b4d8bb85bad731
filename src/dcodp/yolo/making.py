"""From the net that was opened to the small one: pruned, repaired and trained on, in the method's number of steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dcodp.config import Config
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import Opened, open_checkpoint
from dcodp.detectors.ultralytics.writing import mark, write_safetensors
from dcodp.files import read_json, write_atomically
from dcodp.graph import CouplingGraph
from dcodp.pruning import PrunePlan
from dcodp.stepping import epochs_of, ratio_of, target_of
from dcodp.targets import is_timed, parse_target
from dcodp.yolo import exporting
from dcodp.yolo.asking import WORK, Job
from dcodp.yolo.images import Images, calibration
from dcodp.yolo.shrinking import Shrinking, Shrunk
from dcodp.yolo.tuning import Tuning, tuned, usual_lr


@dataclass(frozen=True)
class Made:
    """A net, the plan that leads to it from the one that was opened, and what is to be said of the way."""

    network: nn.Module
    plan: PrunePlan
    notes: list[str]


@dataclass(frozen=True)
class Making:
    """`epochs` of training in all; each step leaves its files under the work folder, and is not done twice."""

    job: Job
    method: Config
    opened: Opened
    dense: UltralyticsNet
    images: Images
    size: int
    epochs: int

    @property
    def steps(self) -> int:
        """What takes its time is measured anew at each cut, so a latency is met in one step."""
        return 1 if is_timed(self.job.target) else self.method.steps

    def made(self) -> Made:
        """Through all steps."""
        made = self._step(None, 1)
        for step in range(2, self.steps + 1):
            made = self._step(made, step)
        return made

    def _step(self, before: Made | None, step: int) -> Made:
        folder = self.job.out / WORK / (f"step-{step}" if self.steps > 1 else "")
        folder.mkdir(parents=True, exist_ok=True)
        path, graph = folder / "pruned.safetensors", None
        detector: Any = self.dense if before is None else self.dense.with_network(before.network)
        if not path.exists():
            graph = self._prune(before, detector, step, folder)
        small = open_checkpoint(path, self.job.imports).network.to(next(self.dense.network.parameters()).device)
        latest = PrunePlan.from_json(folder / "plan.json")
        plan = latest if before is None else before.plan.then(latest)
        told = [*(before.notes if before else []), *read_json(folder / "notes.json")]
        if epochs := epochs_of(self.epochs, step, self.steps):
            small = self._trained(small, plan, graph or detector.coupling_graph(self.size), epochs, folder)
        return Made(small, plan, list(dict.fromkeys(told)))

    def _prune(self, before: Made | None, detector: UltralyticsNet, step: int, folder: Path) -> CouplingGraph:
        """Writes the pruned and repaired net, marked, the plan of this step and its notes; returns the trace."""
        chosen, job = self.method.importance, self.job
        batches = calibration(self.images.of("train"), chosen.images, self.size, chosen.batch, job.seed)
        shrunk = self._shrunk(detector, batches, step)
        plan = shrunk.plan if before is None else before.plan.then(shrunk.plan)
        write_atomically(folder / "notes.json", json.dumps(list(shrunk.notes)))
        mark(shrunk.network, self.opened.description, whole_plan(self.opened, plan), {"imgsz": self.size})
        shrunk.plan.to_json(folder / "plan.json")
        write_safetensors(shrunk.network, folder / "pruned.safetensors")
        return shrunk.graph

    def _shrunk(self, detector: UltralyticsNet, batches: Sequence[Tensor], step: int) -> Shrunk:
        job, shrinking = self.job, Shrinking(detector, batches, self.method)
        if job.target is None:
            return shrinking.to(ratio_of(job.ratio, self.steps), None, job.round_to)
        if is_timed(job.target):
            chosen, (_, share) = exporting.machine(job.runtime, job.threads), parse_target(job.target)
            return shrinking.to_latency(share, chosen, job.table, job.round_to)
        dense = shrinking.graph if step == 1 else self.dense.coupling_graph(self.size)
        target = target_of(job.target, step, self.steps, dense, shrinking.graph)
        return shrinking.to(job.ratio, target, job.round_to)

    def _trained(
        self, small: nn.Module, plan: PrunePlan, graph: CouplingGraph, epochs: range, folder: Path
    ) -> nn.Module:
        """The net that was opened teaches in every step, each of which draws images and changes to them of its own."""
        job, device = self.job, next(self.dense.network.parameters()).device
        lr = job.lr if job.lr is not None else usual_lr(len(self.images.of("train")))
        taught, seed = self.method.finetune, job.seed + epochs.start
        settings = Tuning(
            len(epochs), job.batch, lr, taught.distill, taught.distill_features, seed,
            "cpu" if device.type == "cpu" else str(device.index or 0),
        )  # fmt: skip
        best = tuned(small, self.dense, graph, plan, self.images, self.size, settings, folder / "training")
        return open_checkpoint(best, job.imports).network.to(device)


def whole_plan(opened: Opened, plan: PrunePlan) -> PrunePlan:
    """The plan against the dense net of the description: pruning again composes."""
    return plan if opened.plan is None else opened.plan.then(plan)
