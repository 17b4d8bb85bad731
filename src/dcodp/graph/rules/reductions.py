"""Label rules of reductions and of what works along a dimension: what is mixed is fixed."""

from __future__ import annotations

from typing import Any

from dcodp.graph.labels import (
    is_zero,
    labels_of,
    operation,
    result,
    tensors_in,
)
from dcodp.graph.recording import Recorder


def _dims(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> list[int]:
    """The `dim` argument as non-negative integers; all dimensions where it is absent."""
    names = [a.name for a in func._schema.arguments]
    dim = kwargs.get("dim")
    if dim is None and "dim" in names and names.index("dim") < len(args):
        dim = args[names.index("dim")]
    elif dim is None and "dim" in names:
        dim = func._schema.arguments[names.index("dim")].default_value
    if dim is None or dim == []:
        return list(range(rank))
    return [int(d) % rank for d in (dim if isinstance(dim, list | tuple) else [dim])] if rank else []


def reduction(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    if not (func._schema.name == "aten::sum" and is_zero(x)):
        recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out):
        kept = [a for d, a in enumerate(labels_of(x)) if d not in dims]
        if tensor.dim() == x.dim():
            kept = [None if d in dims else a for d, a in enumerate(labels_of(x))]
        result(tensor, kept, func._schema.name in ("aten::sum", "aten::mean") and is_zero(x))


def along(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """softmax, sort, top-k, cumulative sums: the dimension worked along is fixed, the others pass."""
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out):
        result(tensor, [None if d in dims else a for d, a in enumerate(labels_of(x))])
