"""Reads weights out of checkpoint files without running or importing anything that a file asks for.

Official detector checkpoints pickle whole model objects. Here the pickle becomes a tree of inert records: tensors
and plain containers are rebuilt, every other class is a placeholder that keeps what it was given, and a file that
wants a function called is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcodp.detectors.inert import Inert, Storage, TensorRecord, load_records
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors
from dcodp.pruning.wrappers import WRAPPERS

MAX_PICKLE = 64 * 2**20  # bytes of object graph; YOLOv8x has under 1 MB
MAX_ENTRIES = 100_000  # modules and tensors of one network
MAX_DEPTH = 64  # nesting of modules, and of checkpoint dictionaries
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # torch.save before 1.6


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the weights by state-dict name, and the class names where it tells them.

    Of a pickled model also `kind`, the full name of its class, and `attributes`, those of its attributes that are
    plain data (what is not is left out); `train_args` and `epoch` are what ultralytics' trainer wrote beside it.
    """

    state: dict[str, Tensor]
    names: tuple[str, ...] | None = None
    kind: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    train_args: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by state-dict name, on the CPU; half precision becomes float32.

    Accepts safetensors files, `.pt`/`.pth` files with a state dict (also under `state_dict` or `model`), and those
    with pickled models, of which `ema` is preferred over `model`. Raises InputError for anything else.
    """
    return read_checkpoint(path).state


def read_checkpoint(path: str | Path) -> Checkpoint:
    """As `read_state_dict`, with the class names that ultralytics and YOLOv5/7 models carry."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a weights file")
    if path.suffix == ".safetensors":
        return Checkpoint(_widened(load_tensors(path)[0]))
    if not zipfile.is_zipfile(path):
        raise InputError(_why_not_zip(path))
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is damaged ({error}); fetch it again") from error


def _why_not_zip(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(len(LEGACY_MAGIC))
    if head == LEGACY_MAGIC:
        return f"{path} has torch's format from before version 1.6; load it there and save it again with torch.save"
    if head.startswith(b"PK\x03\x04"):
        return f"{path} is cut short: its table of contents is missing; fetch it again"
    return f"{path} is not a checkpoint; give a .pt, .pth or .safetensors file"


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Checkpoint:
    """A `torch.save` archive: NAME/data.pkl with the object graph, NAME/data/KEY with the raw storages."""
    entries = {info.filename: info for info in archive.infolist()}
    graph = next((name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")), None)
    if graph is None:
        raise InputError(f"{path} is a zip file but no torch checkpoint; give a .pt, .pth or .safetensors file")
    folder = graph.removesuffix("data.pkl")
    _check_archive(entries, folder, path)
    root = _unpickle(archive.read(graph), path)
    network = _unwrapped(_find_network(root))
    records = _without_wrappers(_record_of_each_tensor(network, path))
    state = _widened(_materialise(records, archive, folder, path))
    if not isinstance(network, Inert):
        return Checkpoint(state)
    beside = plain(root) if isinstance(root, dict) else {}
    arguments, epoch = beside.get("train_args"), beside.get("epoch")
    return Checkpoint(
        state,
        _class_names(network),
        ".".join(network.origin),
        plain({k: v for k, v in _state_of(network).items() if not k.startswith("_")}),
        arguments if isinstance(arguments, dict) else {},
        epoch if isinstance(epoch, int) else None,
    )


def _state_of(module: Inert) -> dict[str, Any]:
    return module.state if isinstance(module.state, dict) else {}


def _unwrapped(network: Any, depth: int = 0) -> Any:
    """The model inside DataParallel or torch.compile's wrapper."""
    if isinstance(network, Inert) and depth < MAX_DEPTH:
        modules = _state_of(network).get("_modules")
        if isinstance(modules, dict) and len(modules) == 1 and f"{next(iter(modules))}." in WRAPPERS:
            return _unwrapped(next(iter(modules.values())), depth + 1)
    return network


def _without_wrappers(records: dict[str, TensorRecord]) -> dict[str, TensorRecord]:
    """State-dict names without the wrappers' prefix, which all of them then have."""
    for prefix in [*WRAPPERS] * 2:
        if records and all(name.startswith(prefix) for name in records):
            records = {name.removeprefix(prefix): record for name, record in records.items()}
    return records


class _NotPlain:
    """What stands for an object that is no plain data."""


def plain(value: Any) -> Any:
    """The plain data in a tree of records: objects (but for namespaces and paths) and tensors are left out of their
    containers, and are None where they are the whole."""
    found = _plain(value, 0)
    return None if found is _NotPlain else found


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > MAX_DEPTH or isinstance(value, TensorRecord | Storage):
        return _NotPlain
    if isinstance(value, dict):
        pairs = ((key, _plain(held, depth + 1)) for key, held in value.items() if isinstance(key, str | int))
        return {key: held for key, held in pairs if held is not _NotPlain}
    if isinstance(value, list | tuple):
        return [held for held in (_plain(v, depth + 1) for v in value) if held is not _NotPlain]
    if isinstance(value, Inert) and value.origin[1].endswith("Namespace"):
        return _plain(value.state, depth + 1) if isinstance(value.state, dict) else {}
    if isinstance(value, Inert) and value.origin[1].endswith("Path") and all(isinstance(a, str) for a in value.args):
        return "/".join(value.args).replace("//", "/")
    return _NotPlain


def _check_archive(entries: dict[str, zipfile.ZipInfo], folder: str, path: Path) -> None:
    if folder + "constants.pkl" in entries:
        raise InputError(f"{path} is a TorchScript program; give a checkpoint with weights instead")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise InputError(f"{path} is a compressed archive, which torch.save never writes; give the original checkpoint")
    if entries[folder + "data.pkl"].file_size > MAX_PICKLE:
        raise InputError(f"{path} has an object graph above {MAX_PICKLE >> 20} MiB; give a file with weights only")


def _unpickle(data: bytes, path: Path) -> Any:
    try:
        return load_records(io.BytesIO(data))
    except InputError as error:
        raise InputError(f"{path} {error}; it was not run. Only use weights from a source you trust") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} has an object graph that cannot be read ({reason}); fetch it again") from error


def _find_network(root: Any, depth: int = 0) -> Any:
    """The model object or state dict in a checkpoint: ema before model before state_dict, else the root itself."""
    if isinstance(root, dict) and depth < MAX_DEPTH:
        for key in ("ema", "model", "state_dict"):
            if isinstance(root.get(key), dict | Inert):
                return _find_network(root[key], depth + 1)
    return root


def _record_of_each_tensor(network: Any, path: Path) -> dict[str, TensorRecord]:
    if isinstance(network, dict):
        records = {str(name): value for name, value in network.items() if isinstance(value, TensorRecord)}
    else:
        records = {}
        for count, (name, record) in enumerate(_walk(network, "", 0, path)):
            if count >= MAX_ENTRIES:
                raise InputError(f"{path} has more than {MAX_ENTRIES} tensors; give a file with one network")
            if record is not None:
                records[name] = record
    if not records:
        raise InputError(f"{path} holds no weights; give a checkpoint with a network or a state dict")
    return records


def _walk(module: Any, prefix: str, depth: int, path: Path) -> Iterator[tuple[str, TensorRecord | None]]:
    """State-dict names and tensors of a pickled nn.Module, in its order; (name, None) once per module."""
    if depth > MAX_DEPTH:
        raise InputError(f"{path} nests modules more than {MAX_DEPTH} deep; give a file with one network")
    state = module.state if isinstance(module, Inert) and isinstance(module.state, dict) else {}
    yield prefix, None
    transient = state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(state.get(kind)):
            if isinstance(value, TensorRecord) and name not in transient:
                yield f"{prefix}{name}", value
    for name, child in _items(state.get("_modules")):
        if isinstance(child, Inert):
            yield from _walk(child, f"{prefix}{name}.", depth + 1, path)


def _items(table: Any) -> Iterator[tuple[str, Any]]:
    return iter(table.items()) if isinstance(table, dict) else iter(())


def _class_names(network: Any) -> tuple[str, ...] | None:
    """`names` of a pickled model: a list, or a dictionary from index to name."""
    names = network.state.get("names") if isinstance(network, Inert) and isinstance(network.state, dict) else None
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _materialise(
    records: dict[str, TensorRecord], archive: zipfile.ZipFile, folder: str, path: Path
) -> dict[str, Tensor]:
    """The tensors of the records; a storage shared by several is read once."""
    order = f"{folder}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise InputError(f"{path} was written on a big-endian machine; save it again on this one")
    storages: dict[str, Tensor] = {}
    state = {}
    for name, record in records.items():
        if record.storage.key not in storages:
            storages[record.storage.key] = _read_storage(record, archive, folder, path)
        state[name] = _view(storages[record.storage.key], name, record, path)
    return state


def _read_storage(record: TensorRecord, archive: zipfile.ZipFile, folder: str, path: Path) -> Tensor:
    """One storage as a flat tensor of bytes."""
    key, needed = record.storage.key, record.storage.length * record.storage.dtype.itemsize
    try:
        data = bytearray(archive.read(f"{folder}data/{key}"))
    except KeyError as error:
        raise InputError(f"{path} lacks the data of storage {key}; fetch it again") from error
    if len(data) < needed:
        raise InputError(f"{path} is cut short: storage {key} has {len(data)} of {needed} bytes; fetch it again")
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def _view(storage: Tensor, name: str, record: TensorRecord, path: Path) -> Tensor:
    flat = storage[: len(storage) // record.storage.dtype.itemsize * record.storage.dtype.itemsize]
    flat = flat.view(record.storage.dtype)
    count, last = 1, record.offset
    for size, stride in zip(record.size, record.stride, strict=True):
        count, last = count * size, last + (size - 1) * stride
    if count > len(flat) or (count and last >= len(flat)):
        raise InputError(f"{path} describes {name} as larger than its data; fetch it again")
    return flat.as_strided(record.size, record.stride, record.offset).clone(memory_format=torch.contiguous_format)


def _widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    half = (torch.float16, torch.bfloat16)
    return OrderedDict((k, v.float() if v.dtype in half else v) for k, v in state.items())
