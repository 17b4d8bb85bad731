"""Label rules of reductions and of what works along a dimension: what is mixed is fixed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

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


NOT_MISSED = ("sum", "nansum", "norm", "linalg_vector_norm")  # zeros change nothing in these
ZERO_OF_ZEROS = (*NOT_MISSED, "mean", "amax", "amin", "std", "var", "prod")


def reduction(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    name = func._schema.name.split("::")[1]
    if not (name in NOT_MISSED and is_zero(x) and _positive_order(func, args)):
        recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    for tensor in tensors_in(out):
        kept = [a for d, a in enumerate(labels_of(x)) if d not in dims]
        if tensor.dim() == x.dim():
            kept = [None if d in dims else a for d, a in enumerate(labels_of(x))]
        result(tensor, kept, name in ZERO_OF_ZEROS and is_zero(x))


def _positive_order(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a norm is one that zeros add nothing to (of order > 0)."""
    if "norm" not in func._schema.name:
        return True
    order = args[1] if len(args) > 1 and args[1] is not None else 2
    return not isinstance(order, Tensor) and order > 0


def along(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """softmax, sort, top-k, cumulative sums: the dimension worked along is fixed, the others pass."""
    x = args[0]
    dims = _dims(func, args, kwargs, x.dim())
    recorder.fix_dims(x, dims, f"{operation(func)} mixes the channels")
    zero = operation(func).startswith(("cum", "fft", "sort", "kthvalue")) and is_zero(x)
    for tensor in tensors_in(out):
        result(tensor, [None if d in dims else a for d, a in enumerate(labels_of(x))], zero)
