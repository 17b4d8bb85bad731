"""Named tensors on disk: safetensors, no pickle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcodp.errors import InputError
from dcodp.files.writing import write_atomically


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], header: dict[str, str] | None = None
) -> None:
    """The tensors and a header of text in one safetensors file; tensors that share memory are written one by one."""
    own = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    write_atomically(Path(path), safetensors.torch.save(own, header or {}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, on the CPU, and header of a safetensors file. Raises InputError where it is none."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); fetch or write it again") from error
