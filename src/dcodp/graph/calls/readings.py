"""Calls that read something off a tensor which no label rule follows: counts, strides, memory, plain values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dcodp.graph.calls.shapes import traced_shape
from dcodp.graph.labels import copy_labels, is_labelled, labels_of, tensors_in
from dcodp.graph.recording import Recorder

COUNTS = (torch.Tensor.numel, torch.Tensor.nelement, torch.numel)
# What says the same about a tensor however many channels it has.
HARMLESS = {"dim", "ndimension", "ndim", "element_size", "itemsize", "get_device", "_version",
            "output_nr", "is_complex", "data_ptr", "storage_offset", "__hash__", "register_hook", "names",
            "size", "shape", "_cdata", "requires_grad_", "retain_grad", "storage_type", "type",
            "__repr__", "__format__", "device", "dtype", "layout", "is_shared", "_backward_hooks",
            "grad_fn", "result_type", "can_cast", "promote_types", "_is_view", "is_inference"}  # fmt: skip


def name_of(func: Any) -> str:
    """The name by which a person knows a function, a method or an attribute of tensors."""
    owner = getattr(func, "__self__", None)
    if getattr(func, "__name__", "") in ("__get__", "__set__") and hasattr(owner, "__name__"):
        return str(getattr(owner, "__name__", ""))
    return getattr(func, "__name__", str(func))


def count(recorder: Recorder, args: Any) -> Any:
    """`x.numel()` as an expression of the sizes."""
    shape = traced_shape(args[0], args[0].shape, recorder.uses)
    return shape.numel()


def check_observed(recorder: Recorder, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Whatever came of a call on labelled tensors without a label rule: all that went in stays."""
    inputs = [t for t in tensors_in((args, kwargs)) if is_labelled(t)]
    if not inputs or name_of(func) in HARMLESS:
        return
    if name_of(func).startswith("as_strided"):  # by the model itself: PyTorch's own only rewrites memory formats
        recorder.fix_all(inputs, "as_strided addresses memory by number")
    if name_of(func) == "__len__":
        recorder.fix(labels_of(args[0])[0], "its length was read")
    elif isinstance(out, Tensor):
        if not hasattr(out, "_dcodp_axes"):
            _alias(recorder, func, inputs, out)
    elif _tells(out):
        recorder.fix_all(inputs, f"read by {name_of(func)}, which cannot be followed")


def _alias(recorder: Recorder, func: Any, inputs: list[Tensor], out: Tensor) -> None:
    """`x.data` is x; anything else that bypassed the label rules is not understood."""
    first = inputs[0]
    if name_of(func) in ("data", "detach", "grad_fn") and out.shape == first.shape:
        copy_labels(first, out)
        recorder.note_used(first, out)
    else:
        recorder.fix_all(inputs, f"{name_of(func)} cannot be followed")


def _tells(out: Any) -> bool:
    """Whether a result says something about values or sizes: everything but flags, texts, types and tensors."""
    if out is None or isinstance(out, bool | str | type | torch.dtype | torch.device | torch.layout):
        return False
    if isinstance(out, list | tuple):
        return any(not hasattr(t, "_dcodp_axes") if isinstance(t, Tensor) else _tells(t) for t in out)
    return not isinstance(out, torch.memory_format)
