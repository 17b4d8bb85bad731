"""Pruned models on disk: safetensors for the tensors, the plan as JSON in its header. No pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.pruning.attributes import PREFIX, plain_tensors, set_plain_tensors
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.prune import prune


def save(model: nn.Module, plan: PrunePlan, path: str | os.PathLike[str]) -> None:
    """Write a pruned model and its plan to one file, whole or not at all.

    It holds the state dict and the tensors that modules keep as plain attributes.
    """
    extra = {PREFIX + name: tensor for name, tensor in plain_tensors(model).items()}
    header = {"dcodp_plan": json.dumps(plan.to_dict(), separators=(",", ":"))}
    save_tensors({**model.state_dict(), **extra}, path, header)


def load(dense_architecture: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Rebuild a pruned model from its dense architecture (any weights) and a file of `save`.

    Raises InputError if the file is missing, is not ours, or belongs to another architecture.
    """
    tensors, header = load_tensors(path)
    if "dcodp_plan" not in header:
        raise InputError(f"{path} holds no prune plan; write it with dcodp.save(model, plan, path)")
    small = prune(dense_architecture, PrunePlan.from_dict(json.loads(header["dcodp_plan"])))
    load_into(small, {n: t for n, t in tensors.items() if not n.startswith(PREFIX)}, path)
    set_plain_tensors(small, {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)})
    return small


def load_into(model: nn.Module, tensors: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Fill a model's state dict; names and shapes must agree exactly."""
    own = model.state_dict()
    wrong = [n for n in own.keys() ^ tensors.keys()] + [
        n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape
    ]
    if wrong:
        raise InputError(
            f"{path} belongs to another architecture: {sorted(wrong)[0]} does not fit ({len(wrong)} tensors)"
        )
    model.load_state_dict(tensors)


def save_tensors(
    tensors: dict[str, Tensor], path: str | os.PathLike[str], header: dict[str, str] | None = None
) -> None:
    """Atomic safetensors file; tensors that share memory are written one by one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    try:
        save_file(own, temporary, header or {})
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} could not be written: {error}; free some space or choose another folder") from error


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error
