"""What moves the weights: parameter groups, learning-rate schedule, averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from dcodp.config import TrainSettings

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups: decayed, and not decayed (biases, norm layers, any single vector)."""
    decayed, plain = [], []
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                (plain if parameter.ndim < 2 or isinstance(module, NORMS) else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def make_optimizer(network: nn.Module, settings: TrainSettings, device: torch.device) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), or SGD with Nesterov momentum."""
    groups = parameter_groups(network, settings.weight_decay)
    # Fused is faster, but on a GPU it would clash with gradient scaling.
    fused = True if device.type == "cpu" else None
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(groups, settings.lr, settings.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, settings.lr, (settings.momentum, 0.999), fused=fused)


def warmup_steps(steps_per_epoch: int, settings: TrainSettings) -> int:
    """At most half of the training, so that a short one still reaches its learning rate."""
    return min(round(settings.warmup_epochs * steps_per_epoch), settings.epochs * steps_per_epoch // 2)


def learning_rate(step: int, steps_per_epoch: int, settings: TrainSettings) -> float:
    """The rate of update number `step` (from 0): a linear rise to `lr`, then constant or half a cosine.

    The cosine ends at lr · lr_final with the very last update.
    """
    warmup, last = warmup_steps(steps_per_epoch, settings), settings.epochs * steps_per_epoch - 1
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.lr
    progress = (step - warmup) / max(last - warmup, 1)
    return settings.lr * (settings.lr_final + (1 - settings.lr_final) * (1 + math.cos(math.pi * progress)) / 2)


def newness(fresh: float, settings: TrainSettings) -> float:
    """The factor on every learning rate for a detector of which a share `fresh` of the classes is new to its weights.

    A detector that knows its classes already is shaken loose by the rate that one for other things needs.
    """
    return settings.fresh_lr**fresh


def average_decay(updates: int, settings: TrainSettings) -> float:
    """decay · (1 − exp(−updates / ramp)), as ultralytics: early averages forget the first weights quickly."""
    if settings.ema_ramp <= 0:
        return settings.ema_decay
    return settings.ema_decay * (1 - math.exp(-updates / settings.ema_ramp))


class AveragedWeights:
    """Exponential moving average of all parameters and buffers, in a network of its own in eval mode."""

    def __init__(self, network: nn.Module, settings: TrainSettings):
        self.settings = settings
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._copied = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes the network's present weights in, after its `updates`-th optimiser step (from 1)."""
        weight = 1 - average_decay(updates, self.settings)
        mine, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(mine, theirs, weight)
        for old, new in self._copied:
            old.copy_(new)

    def is_finite(self) -> bool:
        return all(bool(mine.isfinite().all()) for mine, _ in self._averaged)
