"""One recorded forward pass of a model: the labels of every tensor, the sizes in its code, the order of its layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dcodp.errors import InputError
from dcodp.graph.coupling import CouplingGraph, build_graph
from dcodp.graph.functions import SizeMode
from dcodp.graph.labels import Labels, labels_of, put_labels
from dcodp.graph.layers import OperationGraph
from dcodp.graph.modules import Following, follow_module_sizes, suggest, trace_attributes
from dcodp.graph.rules import LAYER_RULES, rule_for, tensors_in
from dcodp.graph.sizes import SizeRule, TracedInt, origin_of, solve


class Recorder(TorchDispatchMode):
    """Runs every ATen operation and applies its label rule; collects size rules and the operation graph."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.labels = Labels()
        self.rules: list[SizeRule] = []
        self.followings: list[Following] = []  # attributes that follow a tensor dimension
        self.operations = OperationGraph()
        self.hint: list[Any] | None = None  # the sizes of the view under way, as the model wrote them
        self.sizes_seen = False  # whether the function under way has its sizes checked by functions.py
        self.modules: list[str] = [""]  # the modules whose forward is running, innermost last
        self.reads: list[Any] = []  # attributes that the model's code used
        self.named_modules = dict(model.named_modules())
        self.owner: dict[int, str] = {}  # id of a parameter or buffer → its first state-dict name
        self.used: set[str] = set()  # names of those that the forward pass read
        self._label_parameters(model)

    def _label_parameters(self, model: nn.Module) -> None:
        """Floating-point parameters and buffers get fresh labels; integer buffers are data and get none."""
        named = [*model.named_parameters(), *model.named_buffers()]
        for name, tensor in named:
            if tensor.is_floating_point():
                self.owner[id(tensor)] = name
                put_labels(tensor, [self.labels.fresh(size) for size in tensor.shape])
                tensor._dcodp_zero = True  # type: ignore[attr-defined]
                tensor._dcodp_module = self.named_modules[name.rpartition(".")[0]]  # type: ignore[attr-defined]

    # --- what rules ask for ---

    @property
    def where(self) -> str:
        return self.modules[-1] or "the model"

    def fix(self, labels: np.ndarray | None, reason: str) -> None:
        self.labels.fix(labels, f"{reason} ({self.where})")

    def fix_dims(self, tensor: Tensor, dims: Any, reason: str) -> None:
        axes = labels_of(tensor)
        for dim in dims:
            self.fix(axes[dim], reason)

    def fix_all(self, tree: Any, reason: str) -> None:
        for tensor in tensors_in(tree):
            self.fix_dims(tensor, range(tensor.dim()), reason)

    def meet(self, one: np.ndarray | None, other: np.ndarray | None) -> None:
        """Two dimensions that run in step."""
        if one is None or other is None:
            self.fix(one if other is None else other, "meets values that no parameter owns")
        else:
            self.labels.tie(one, other)

    def meet_all(self, axes: list[np.ndarray | None]) -> np.ndarray | None:
        """Dimensions of several tensors that run in step; returns their common labels."""
        first = next((a for a in axes if a is not None), None)
        for other in axes:
            self.meet(first, other)
        return first

    def contract(self, left: Tensor, one: np.ndarray | None, right: Tensor, other: np.ndarray | None) -> None:
        """Dimensions summed over: exact if a removed channel is 0 on at least one side."""
        if not (getattr(left, "_dcodp_zero", False) or getattr(right, "_dcodp_zero", False)):
            self.fix(one, "summed over without a weight")
            self.fix(other, "summed over without a weight")
        self.meet(one, other)

    def choose_dim(self, dims: list[int]) -> int:
        """Of the dimensions that share one kind of channel, the one that may shrink: not a literal, else the last."""
        if self.hint is not None:
            for wanted in (lambda s: s == -1, lambda s: isinstance(s, TracedInt)):
                free = [d for d in dims if d < len(self.hint) and wanted(self.hint[d])]
                if free:
                    return free[-1]
        return dims[-1]

    def require(self, size: Any, labels: np.ndarray | None, dense_size: int) -> None:
        """The model's code says that a dimension has `size`."""
        if labels is not None or isinstance(size, TracedInt):
            self.rules.append(SizeRule(origin_of(size), labels, dense_size, self.where))

    def _module_of(self, tensor: Tensor) -> tuple[str, nn.Module | None]:
        name = self.owner.get(id(tensor), "").rpartition(".")[0]
        return name, self.named_modules.get(name)

    def owns_groups(self, weight: Tensor) -> bool:
        """Whether the weight belongs to a module whose number of groups we can lower."""
        return hasattr(self._module_of(weight)[1], "groups") or hasattr(self._module_of(weight)[1], "num_groups")

    def follow_groups(self, weight: Tensor, labels: np.ndarray) -> None:
        """labels [groups]: one per group of a grouped convolution or group normalisation."""
        name, module = self._module_of(weight)
        self.followings.append(Following(name, "groups" if hasattr(module, "groups") else "num_groups", labels))

    def suggest_pieces(self, pieces: list[np.ndarray | None]) -> None:
        """An attribute of the running module that equals the size of a piece probably means it (`self.c`)."""
        self.followings += suggest(self.modules[-1], self.named_modules, pieces)

    def suggest_ends(self, name: str, args: Any, out: Any) -> None:
        """`in_channels` and `out_channels` of a container mean what enters and leaves it."""
        for ends, key in ((args, "in_channels"), (out, "out_channels")):
            axes = [labels_of(t)[1] for t in tensors_in(ends) if t.dim() == 4]
            self.followings += suggest(name, self.named_modules, axes, only=key)

    # --- the mode ---

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = tensors_in((args, kwargs))
        if not inputs:
            return out
        self.used.update(self.owner[id(t)] for t in inputs if id(t) in self.owner)
        rule = rule_for(func)
        try:
            rule(self, func, args, kwargs, out)
        except (IndexError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            self.fix_all((args, kwargs, out), f"{func} was used in a way that is not understood: {error}")
            for tensor in tensors_in(out):
                put_labels(tensor, [None] * tensor.dim())
        self._record(rule, inputs, tensors_in(out))
        return out

    def _record(self, rule: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        weights = [w for t in inputs if (w := self._weight_name(t)) is not None]
        if len(inputs) == 1 and weights:  # a view of a weight is still that weight
            for tensor in outputs:
                tensor._dcodp_weight = weights[0]  # type: ignore[attr-defined]
        layer = weights[-1].rpartition(".")[0] if weights and rule in LAYER_RULES else None
        self.operations.record(inputs, outputs, layer)

    def _weight_name(self, tensor: Tensor) -> str | None:
        name = getattr(tensor, "_dcodp_weight", None) or self.owner.get(id(tensor))
        return name if tensor.dim() > 1 else None


def trace(
    model: nn.Module, example_inputs: Any, outputs: Callable[[Any], Any] | None = None, **named: Any
) -> CouplingGraph:
    """Record one forward pass and derive which channels are coupled.

    `example_inputs`: a tuple of positional arguments (a tensor stands for a tuple of one, a dict for keyword
    arguments). `outputs`: from the model's result, the part whose shape and values must stay (default: everything).
    The model is left untouched: a deep copy runs, in evaluation mode, without gradients.

    Raises InputError where the model does not run on the inputs.
    """
    args, kwargs = call_arguments(example_inputs, named)
    twin = copy.deepcopy(model).eval()
    recorder = Recorder(twin)
    dense = trace_attributes(recorder.named_modules, recorder.reads)
    with _modules_tracked(twin, recorder), _no_fast_path(), torch.no_grad():
        try:
            with recorder, SizeMode(recorder):
                result = twin(*args, **kwargs)
        except Exception as error:
            raise InputError(
                f"the model does not run on the example inputs: {type(error).__name__}: {error}"
            ) from error
    recorder.fix_all(result if outputs is None else outputs(result), "an output of the model")
    components, attributes = solve(recorder.rules, recorder.labels, dense)
    recorder.followings += follow_module_sizes(recorder.named_modules)
    return build_graph(model, recorder, components, attributes)


def call_arguments(
    example_inputs: Any, named: Mapping[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A tensor, a tuple or a dict → positional and keyword arguments."""
    if isinstance(example_inputs, Mapping):
        return (), {**example_inputs, **(named or {})}
    args = tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return args, dict(named or {})


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """PyTorch's fused encoder layers hide their operations; the plain path computes the same."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _modules_tracked(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Keep `recorder.modules` at the stack of running modules."""
    handles = []
    for name, module in model.named_modules():

        def enter(_module: nn.Module, _args: Any, name: str = name) -> None:
            recorder.modules.append(name)

        def leave(_module: nn.Module, args: Any, out: Any, name: str = name) -> None:
            recorder.modules.pop()
            recorder.suggest_ends(name, args, out)

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
