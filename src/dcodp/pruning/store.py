"""Pruned models on disk: safetensors for the tensors, the plan as JSON in its header. No pickle."""

from __future__ import annotations

import json
import os

from torch import nn

from dcodp.errors import InputError
from dcodp.files.loading import load_strictly
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.pruning.attributes import PREFIX, plain_tensors, set_plain_tensors
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.slicing import prune


def save(network: nn.Module, plan: PrunePlan, path: str | os.PathLike[str]) -> None:
    """Write a pruned model and its plan to one file, whole or not at all.

    It holds the state dict and the tensors that modules keep as plain attributes.
    """
    extra = {PREFIX + name: tensor for name, tensor in plain_tensors(network).items()}
    header = {"dcodp_plan": json.dumps(plan.to_dict(), separators=(",", ":"))}
    save_tensors({**network.state_dict(), **extra}, path, header)


def load(dense_architecture: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Rebuild a pruned model from its dense architecture (any weights) and a file of `save`.

    Raises InputError if the file is missing, is not ours, or belongs to another architecture.
    """
    tensors, header = load_tensors(path)
    if "dcodp_plan" not in header:
        raise InputError(f"{path} holds no prune plan; write it with dcodp.save(model, plan, path)")
    small = prune(dense_architecture, PrunePlan.from_dict(json.loads(header["dcodp_plan"])))
    load_strictly(small, {n: t for n, t in tensors.items() if not n.startswith(PREFIX)}, str(path))
    set_plain_tensors(small, {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)})
    return small
