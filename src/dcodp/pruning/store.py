"""Pruned models on disk: safetensors for the tensors, the plan as JSON in its header. No pickle."""

from __future__ import annotations

import json
import os

from torch import nn

from dcodp.errors import InputError
from dcodp.files.loading import load_strictly
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.slicing import prune


def save(model: nn.Module, plan: PrunePlan, path: str | os.PathLike[str]) -> None:
    """Write a pruned model's state dict and its plan to one file, whole or not at all."""
    save_tensors(model.state_dict(), path, {"dcodp_plan": json.dumps(plan.to_dict(), separators=(",", ":"))})


def load(dense_architecture: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Rebuild a pruned model from its dense architecture (any weights) and a file of `save`.

    Raises InputError if the file is missing, is not ours, or belongs to another architecture.
    """
    tensors, header = load_tensors(path)
    if "dcodp_plan" not in header:
        raise InputError(f"{path} holds no prune plan; write it with dcodp.save(model, plan, path)")
    small = prune(dense_architecture, PrunePlan.from_dict(json.loads(header["dcodp_plan"])))
    load_strictly(small, tensors, str(path))
    return small
