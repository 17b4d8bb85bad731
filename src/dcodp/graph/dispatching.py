"""The level of ATen: every operation of the running model goes to its label rule."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dcodp.graph.labels import copy_labels, is_labelled, labels_of, put_labels, tensors_in
from dcodp.graph.making import Makings
from dcodp.graph.recording import Recorder
from dcodp.graph.rules import LAYER_RULES, operands_of, rule_for

RESHAPED_IN_PLACE = {f"aten::{name}_" for name in ("t", "transpose", "squeeze", "unsqueeze", "as_strided", "swapaxes")}


def _with_its_shape(tensor: Tensor) -> Tensor:
    """The same memory and labels in the shape that the tensor has now."""
    before = tensor.detach()
    copy_labels(tensor, before)
    return before


def _out_of_place(func: Any) -> Any:
    packet = getattr(torch.ops.aten, func._schema.name.removeprefix("aten::").removesuffix("_"))
    name = func._overloadname or "default"
    return getattr(packet, name if name in packet.overloads() else "int")  # transpose_ and transpose.int


class LabelMode(TorchDispatchMode):
    """Runs every ATen operation, applies its label rule and records it for Algorithm 1."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder
        self.makings = Makings(recorder.owner, set(recorder.owner))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = None
        if func._schema.name in RESHAPED_IN_PLACE:
            before, self.recorder.strides_before = _with_its_shape(args[0]), args[0].stride()
        out = func(*args, **kwargs)
        inputs, outputs = tensors_in((args, kwargs)), tensors_in(out)
        if not inputs:
            self.makings.record((), outputs, contracts=False, writes=False)
            return out
        self.recorder.used.update(self.recorder.owner[id(t)] for t in inputs if id(t) in self.recorder.owner)
        for tensor in inputs:
            if not hasattr(tensor, "_dcodp_axes"):
                self._check_memory(tensor)
        self._forget_zeros(inputs)
        rule = rule_for(_out_of_place(func) if before is not None else func)
        try:
            if before is not None and func._schema.name != "aten::as_strided_":
                func, args = _out_of_place(func), (before, *args[1:])
            rule(self.recorder, func, args, kwargs, out)
        except Exception as error:  # whatever a rule did not foresee: nothing that it touched may be removed
            problem = f"{func} was used in a way that is not understood: {type(error).__name__}: {error}"
            self.recorder.fix_all((args, kwargs, out), problem)
            for tensor in outputs:
                put_labels(tensor, [None] * tensor.dim())
        finally:
            self.recorder.strides_before = None
        self.recorder.seen += map(weakref.ref, outputs)
        self._follow_writes(func, outputs)
        self._record(rule, func, args, inputs, outputs)
        return out

    def _check_memory(self, tensor: Tensor) -> None:
        """A tensor that came from nowhere may be another's memory, handed around where nothing is seen (DLPack)."""
        tensor._dcodp_axes = [None] * tensor.dim()  # type: ignore[attr-defined]
        self.recorder.seen.append(weakref.ref(tensor))
        if tensor.device.type == "meta" or tensor.layout != torch.strided or not tensor.numel():
            return
        memory = tensor.untyped_storage().data_ptr()
        for reference in self.recorder.seen:
            other = reference()
            if other is not None and is_labelled(other) and other.untyped_storage().data_ptr() == memory:
                self.recorder.fix_all(other, "its memory is read in a way that cannot be followed")

    def _forget_zeros(self, inputs: list[Tensor]) -> None:
        """A tensor whose memory was written to through another view may hold anything where channels are removed."""
        for tensor in inputs if self.recorder.written else ():
            if tensor.untyped_storage()._cdata in self.recorder.written:
                tensor._dcodp_zero = False  # type: ignore[attr-defined]

    def _follow_writes(self, func: Any, outputs: list[Tensor]) -> None:
        for tensor in outputs:
            if func._schema.is_mutable and not getattr(tensor, "_dcodp_zero", False):
                self.recorder.written.add(tensor.untyped_storage()._cdata)
            elif self.recorder.written and not func.is_view and not func._schema.is_mutable:
                self.recorder.written.discard(tensor.untyped_storage()._cdata)  # new memory at a known address

    def _record(self, rule: Any, func: Any, args: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        applied = self._applied(rule, func, args)
        names = self._direct(inputs[0]) if len(inputs) == 1 else ()
        self.makings.record(inputs, outputs, rule in LAYER_RULES, func._schema.is_mutable)
        for tensor in outputs if names else ():  # a view of a weight is still that weight
            tensor._dcodp_weight = names[0]  # type: ignore[attr-defined]
        layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in applied))
        self.recorder.operations.record(inputs, outputs, layers)

    def _applied(self, rule: Any, func: Any, args: Any) -> tuple[str, ...]:
        """The parameters whose layers an operation applies: a weight as it is, else what one is made of."""
        if rule not in LAYER_RULES:
            return ()
        operands = operands_of(rule, func, args)
        for names_of in (self._direct, self._remade):
            found = [(names_of(tensor), tensor, outer, inner) for tensor, outer, inner in operands]
            found = [entry for entry in found if entry[0]]
            if found and (names_of == self._direct or len(operands) == 1 or self._meets_data(operands)):
                names, tensor, outer, inner = found[-1]
                self.recorder.applied += [(name, labels_of(tensor)[outer], labels_of(tensor)[inner]) for name in names]
                return names
        return ()

    def _meets_data(self, operands: list[tuple[Tensor, int, int]]) -> bool:
        """Whether only one side of a product is made of weights."""
        return sum(bool(self._remade(tensor)) for tensor, _, _ in operands) == 1

    def _direct(self, tensor: Tensor) -> tuple[str, ...]:
        name = getattr(tensor, "_dcodp_weight", None) or self.recorder.owner.get(id(tensor))
        return (name,) if name is not None and tensor.dim() > 1 else ()

    def _remade(self, tensor: Tensor) -> tuple[str, ...]:
        making = self.makings.of(tensor)
        names = () if making is None or tensor.dim() < 2 else making.names
        return tuple(name for name in names if name not in self.recorder.buffers) or names
