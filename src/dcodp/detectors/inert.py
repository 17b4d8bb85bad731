"""An unpickler that turns a torch pickle into records and calls nothing but the builders named here.

Python's pickle asks for every class and function by name (`find_class`) and then calls or instantiates it. The names
below get a builder of ours or a harmless built-in; every other name gets a class made on the spot that keeps its
arguments and state as data. Calling a function, or anything of the standard library, is refused by name.
"""

from __future__ import annotations

import builtins
import pickle
import pickletools
import sys
from collections import OrderedDict
from typing import Any, BinaryIO, NamedTuple

import torch

from dcodp.errors import InputError

MAX_MEMO_GAP = 1024  # memo numbers run from 0 upwards in real pickles; a huge one would only exhaust memory

# Tensor storages of `torch.save`, by class name.
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STORAGES.values()}
# Built-ins that only hold what they are given (never bytes or range: one number would make them large).
CONTAINERS = ("set", "frozenset", "list", "dict", "tuple", "complex", "slice")
# Names of the standard library that only describe data; they stay placeholders too.
DATA_CLASSES = {
    ("collections", "defaultdict"),
    ("collections", "deque"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("functools", "partial"),
    ("_codecs", "encode"),
    ("builtins", "bytes"),
    ("__builtin__", "bytes"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
}
# A bound method, as fused nets keep one: of an object that is a placeholder itself, so nothing is looked up.
BOUND = {("builtins", "getattr"), ("__builtin__", "getattr")}
# Lower-case names outside the standard library that rebuild data; kept as placeholders, never called.
DATA_FUNCTIONS = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("dtype", "ndarray", "scalar", "_reconstruct")
} | {("torch", "device")}
PYTHON_2 = ("__builtin__", "commands", "exceptions", "popen2", "os2")


class Storage(NamedTuple):
    """A storage in the archive, not read yet: `length` elements of `dtype` in the entry data/`key`."""

    key: str
    dtype: torch.dtype
    length: int


class TensorRecord(NamedTuple):
    """A tensor not read yet: a strided view into a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _InertType(type):
    origin: tuple[str, str]

    def __call__(cls, *args: Any) -> Inert:  # the pickle's REDUCE: call a function or a class
        name = cls.origin[1].rpartition(".")[2]
        if cls.origin in BOUND and len(args) == 2 and isinstance(args[0], Inert) and isinstance(args[1], str):
            return _InertType("Method", (Inert,), {"origin": ("torch", "Method")})(*args)
        if not name.lstrip("_")[:1].isupper() and cls.origin not in DATA_FUNCTIONS | DATA_CLASSES:
            raise InputError(f"asks to call {'.'.join(cls.origin)}")
        return Inert.__new__(cls, *args)  # type: ignore[arg-type]


class Inert(metaclass=_InertType):
    """Stands for an object of a class that is not imported: keeps what it was made of, does nothing.

    `args` are constructor arguments, `state` what would have become its attributes, `entries` what it held as a
    list or a dictionary.
    """

    origin = ("", "")
    args: tuple[Any, ...]
    state: Any
    entries: list[Any]

    def __new__(cls, *args: Any) -> Inert:  # also the pickle's NEWOBJ, which needs a class
        module = cls.origin[0].partition(".")[0]
        if cls.origin not in DATA_CLASSES and (module in sys.stdlib_module_names or module in PYTHON_2):
            raise InputError(f"asks to use {'.'.join(cls.origin)}")
        self = object.__new__(cls)
        self.args, self.state, self.entries = args, None, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, value: Any) -> None:
        self.entries.append(value)

    add = append

    def extend(self, values: Any) -> None:
        self.entries.extend(values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))

    def __repr__(self) -> str:
        return f"<{'.'.join(self.origin)}>"


class _RecordUnpickler(pickle.Unpickler):
    """Restricted as described above; tensors become `TensorRecord`s."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        match module_name, global_name:
            case ("torch._utils", "_rebuild_tensor_v2"):
                return self._tensor
            case ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"):
                return self._parameter
            case ("collections", "OrderedDict"):
                return OrderedDict
            case ("torch", "Size"):
                return torch.Size
            case ("builtins" | "__builtin__", name) if name in CONTAINERS:
                return getattr(builtins, name)
            case ("torch", name) if name in DTYPES:
                return DTYPES[name]
        return _InertType(global_name, (Inert,), {"origin": (module_name, global_name)})

    def persistent_load(self, pid: Any, /) -> Storage:
        match pid:
            case ("storage", type() as kind, str() as key, str(), int() as length) if length >= 0:
                dtype = STORAGES.get(kind.origin[1]) if issubclass(kind, Inert) else None
                if dtype is not None:
                    return Storage(key, dtype, length)
        raise pickle.UnpicklingError("a storage of an unknown kind")

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Storage) or len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor without storage or strides")
        if not all(isinstance(n, int) and 0 <= n < 2**48 for n in numbers):
            raise pickle.UnpicklingError("a tensor with impossible sizes")
        return TensorRecord(storage, offset, tuple(size), tuple(stride))

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data


def load_records(stream: BinaryIO) -> Any:
    """The object graph of a torch pickle as plain containers, `TensorRecord`s and `Inert` placeholders.

    Raises InputError (without the file's name) where the pickle asks to call something, and pickle's own errors
    where it is malformed.
    """
    _check_opcodes(stream)
    stream.seek(0)
    return _RecordUnpickler(stream).load()


def _check_opcodes(stream: BinaryIO) -> None:
    """Refuses what no torch pickle has: the global extension registry, and memo numbers made to exhaust memory."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name.startswith("EXT"):
            raise InputError("asks for an entry of Python's extension registry")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count + MAX_MEMO_GAP:
            raise pickle.UnpicklingError("memo number out of range")
