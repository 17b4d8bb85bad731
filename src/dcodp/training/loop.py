"""The loop: batches → loss → AdamW → averaged weights → validation → checkpoint, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dcodp.config import TrainSettings, without_late_defaults
from dcodp.data.augment import TrainingBatches
from dcodp.data.types import Batch
from dcodp.detectors.base import Detector
from dcodp.errors import InputError
from dcodp.files.loading import load_strictly
from dcodp.records.folder import RunFolder
from dcodp.records.metrics import append_metrics
from dcodp.training import files
from dcodp.training.display import Display
from dcodp.training.objective import Objective, Term, Whole
from dcodp.training.optimise import AveragedWeights, learning_rate, make_optimizer, newness
from dcodp.training.processes import in_processes, make_fabric
from dcodp.training.randomness import deterministic, own_randomness, random_states, restore_random_states, seed_all

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Validate = Callable[[Detector], dict[str, Any]]
FITNESS = "map50_95"  # decides which epoch is the best


def train(
    detector: Detector,
    batches: TrainingBatches,
    settings: TrainSettings,
    folder: Path,
    *,
    seed: int,
    devices: Sequence[torch.device | str],
    validate: Validate | None,
    terms: Mapping[str, Term] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Trains `detector.network` from `folder`'s last checkpoint if there is one; the result is in `folder`.

    `validate` is given the detector with the averaged weights and returns numbers with `map50_95`; without it the
    last epoch counts as the best. `terms` of these names are added to the detector's loss, or are all there is where
    `settings.labels` is off. `on_epoch` is told each epoch's line of metrics.jsonl once everything is on disk. The
    network is never rebuilt, so pruned shapes stay; `load_best` puts the best weights into it. Returns at once where
    done.json is present. The global random generators are left as they were found.

    With several devices every batch is shared among as many processes, and everything that is given must pickle.

    Raises InputError for a checkpoint of other shapes or settings, a full disk, and a loss that is not finite.
    """
    if files.is_done(folder):
        return
    fabric = make_fabric([torch.device(device) for device in devices], settings.amp, settings.amp_on_cpu)
    start_from = (detector, batches, settings, folder, seed, validate, terms or {}, on_epoch)
    if len(devices) > 1:
        detector.network.cpu()  # from where each process takes it to its own device
        in_processes(fabric, _train, *start_from)
    else:
        fabric.launch()
        _train(fabric, *start_from)


def _train(
    fabric: Fabric,
    detector: Detector,
    batches: TrainingBatches,
    settings: TrainSettings,
    folder: Path,
    seed: int,
    validate: Validate | None,
    terms: Mapping[str, Term],
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> None:
    """What each process does."""
    with own_randomness(fabric.device), deterministic(fabric.device):
        seed_all(seed + fabric.global_rank)
        training = _Training(detector, batches, settings, folder, seed, fabric, validate, terms)
        training.resume()
        training.run(on_epoch)
    detector.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


class _Training:
    """The state of one training between two steps."""

    def __init__(
        self,
        detector: Detector,
        batches: TrainingBatches,
        settings: TrainSettings,
        folder: Path,
        seed: int,
        fabric: Fabric,
        validate: Validate | None,
        terms: Mapping[str, Term],
    ):
        self.detector, self.batches, self.settings, self.folder = detector, batches, settings, folder
        self.fabric, self.validate, self.seed = fabric, validate, seed
        # Channels last: 20 % faster on a CPU, and what tensor cores want.
        detector.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if fabric.world_size > 1 and fabric.device.type == "cuda":  # statistics of the whole batch, as on one device
            detector.network = nn.SyncBatchNorm.convert_sync_batchnorm(detector.network)
        optimizer = make_optimizer(detector.network, settings, fabric.device)
        self.module, self.optimizer = fabric.setup(Objective(detector, terms, settings.labels), optimizer)
        self.average = AveragedWeights(detector.network, settings)
        self.newness = newness(detector.fresh, settings)
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.best: dict[str, Any] | None = None

    def resume(self) -> None:
        """Goes on where last.ckpt stopped; its settings and shapes must be those of now."""
        checkpoint = files.load_last(self.folder)
        if checkpoint is not None:
            self._require_same_settings(checkpoint["settings"])
            self._restore(checkpoint)
        if self.fabric.is_global_zero:
            files.drop_metrics_after(self.folder, self.epoch)

    def run(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> None:
        quiet = not self.fabric.is_global_zero
        before, steps = self.batches.before, len(self.batches)
        with Display(self.detector.name, before + self.settings.epochs, steps, before + self.epoch, quiet) as display:
            while self.epoch < self.settings.epochs:
                row = self._run_epoch(display)
                if self.fabric.is_global_zero:
                    self._save(row)
                self.fabric.barrier()
                display.epoch(row)
                if on_epoch is not None and self.fabric.is_global_zero:
                    on_epoch(row)
        if self.fabric.is_global_zero:
            self._finish()
        self.fabric.barrier()

    def _run_epoch(self, display: Display) -> dict[str, Any]:
        start = time.perf_counter()
        losses = self._update_weights(display)
        self.epoch += 1
        row = {
            "epoch": self.batches.before + self.epoch,
            **losses,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self._validate(),
        }
        row["seconds"] = time.perf_counter() - start
        self.seconds += row["seconds"]
        return row

    def _update_weights(self, display: Display) -> dict[str, float]:
        """One epoch of updates; returns the mean losses by name."""
        self.detector.network.train()
        sums: dict[str, Tensor] = {}
        for batch in self.batches.epoch(self.epoch, self.fabric.global_rank, self.fabric.world_size):
            for name, value in self._update(batch.to(self.fabric.device)).items():
                sums[name] = sums.get(name, 0) + value.float()
            display.step()
        if not self.average.is_finite():
            raise self._not_finite("a weight")
        means: Any = torch.stack(list(sums.values())) / len(self.batches)
        means = self.fabric.all_reduce(means, reduce_op="mean")
        return dict(zip(sums, means.tolist(), strict=True))

    def _update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimiser; returns the total loss and its parts, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.newness * learning_rate(self.step, len(self.batches), self.settings)
        loss, parts = self.module(Whole(batch))
        if not loss.isfinite():
            raise self._not_finite("the loss")
        self.fabric.backward(loss)
        if self.settings.clip_norm:
            limit = self.settings.clip_norm
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.average.update(self.step)
        return {"loss": loss.detach(), **{f"loss_{name}": part for name, part in parts.items()}}

    def _not_finite(self, what: str) -> InputError:
        return InputError(
            f"{what} is not finite in epoch {self.epoch + 1} of {self.folder}; "
            f"lower the learning rate (lr={self.settings.lr}) or clip_norm={self.settings.clip_norm}"
        )

    def _validate(self) -> dict[str, Any]:
        """The numbers of the averaged weights where this epoch is to be validated; the best are kept."""
        due = self.epoch % self.settings.eval_every == 0 or self.epoch == self.settings.epochs
        if self.validate is None or not due or not self.fabric.is_global_zero:
            return {}
        numbers = self.validate(self.detector.with_network(self.average.network))
        defined = numbers[FITNESS] is not None and math.isfinite(numbers[FITNESS])  # not where there are no objects
        fitness = float(numbers[FITNESS]) if defined else -1.0
        if self.best is None or not fitness < self.best[FITNESS]:  # of equals the later, which saw more
            self.best = {"epoch": self.epoch, FITNESS: fitness}
            files.save_best(self.average.network, self.folder)
        return numbers

    def _finish(self) -> None:
        if self.best is None:
            self.best = {"epoch": self.epoch}
            files.save_best(self.average.network, self.folder)
        files.write_done(self.folder, {"epochs": self.epoch, "seconds": self.seconds, "best": self.best})

    def _save(self, row: dict[str, Any]) -> None:
        append_metrics(RunFolder(self.folder), row)
        content = {
            "settings": self._identity(),
            "network": self.detector.network.state_dict(),
            "average": self.average.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": random_states(self.fabric.device),
            **{name: getattr(self, name) for name in ("epoch", "step", "seconds", "best")},
        }
        files.save_last(self.folder, content)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        path = self.folder / files.LAST
        load_strictly(self.detector.network, checkpoint["network"], path)
        load_strictly(self.average.network, checkpoint["average"], path)
        for group in checkpoint["optimizer"]["param_groups"]:
            group["fused"] = self.optimizer.param_groups[0]["fused"]  # it may come from another kind of device
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.fabric.strategy.precision.load_state_dict(checkpoint["precision"])
        for name in ("epoch", "step", "seconds", "best"):
            setattr(self, name, checkpoint[name])
        if self.fabric.is_global_zero:
            restore_random_states(checkpoint["random"], self.fabric.device)
        else:  # the checkpoint holds the first process' generators only
            seed_all(self.seed + self.fabric.global_rank + self.step)

    def _identity(self) -> dict[str, Any]:
        """What must not change between a checkpoint and its resumption."""
        settings = without_late_defaults(self.settings)
        settings.pop("workers")
        data = {"images": len(self.batches.detection_set), "image_size": self.batches.image_size}
        return {**settings, **data, "fresh": self.detector.fresh, "seed": self.seed, "devices": self.fabric.world_size}

    def _require_same_settings(self, then: dict[str, Any]) -> None:
        now = self._identity()
        for key in {**then, **now}:
            if then.get(key) != now.get(key):
                raise InputError(
                    f"{self.folder / files.LAST} was written with {key}={then.get(key)}, now {key}={now.get(key)}; "
                    "restore the setting, or delete the folder to start this training anew"
                )
