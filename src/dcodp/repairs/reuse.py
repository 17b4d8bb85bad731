"""What a net's modules gave for some images, reused by copies of the net that differ from it in a few modules.

A copy computes nothing before the first module that differs: a call is answered from the record where the module and
all below it are as they were, and it is given what it was given then, bit by bit. So the result is that of the whole
copy, for nets of any kind; what happens outside of modules (sums, concatenations) is computed again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from dcodp.graph.tracing import result_tensors
from dcodp.pruning import PrunePlan
from dcodp.pruning.slicing import named_tensors

MEMORY = 2**30  # bytes of results that are kept, at most
Call = Callable[[str, Callable[..., Any], Any, Any], Any]  # module's name, its forward, what it is given → its result


@dataclass(frozen=True)
class Given:
    """A recorded call."""

    inputs: list[Any]
    result: Any
    versions: list[int]  # of the result's tensors when the module gave them

    @property
    def is_intact(self) -> bool:
        """Nothing was written into the result since, as operations in place do."""
        return [tensor._version for tensor in result_tensors(self.result)] == self.versions

    def was_given(self, inputs: list[Any]) -> bool:
        return len(inputs) == len(self.inputs) and all(map(_same_leaf, self.inputs, inputs))


class Reuse:
    """`run(network)` is what is done with each copy: the same images through it, in eval mode. It keeps `memory` bytes
    of results, at most."""

    def __init__(self, dense: nn.Module, run: Callable[[nn.Module], Any], memory: int = MEMORY):
        self.dense = dense
        self._calls: defaultdict[str, list[Given]] = defaultdict(list)  # by the module's name
        depth = self._affordable(run, memory)
        with _intercepted(dense, {n for n, _ in dense.named_modules() if n and _depth(n) <= depth}, self._record):
            run(dense)
        for name, calls in self._calls.items():
            self._calls[name] = [given for given in calls if given.is_intact]

    @contextmanager
    def applied(self, small: nn.Module, plan: PrunePlan) -> Iterator[None]:
        """Within, `small`, which `plan` and a repair made of the dense net, answers from the record where it can."""
        changed = _changed(self.dense, small, plan)
        alike = {name for name, _ in small.named_modules()} - changed
        with _intercepted(small, alike & self._calls.keys(), self._answer):
            yield

    def _affordable(self, run: Callable[[nn.Module], Any], memory: int) -> int:
        """Down to which depth of modules within modules results can be kept."""
        sizes: Counter[int] = Counter()
        last: dict[int, int] = {}  # where the last result lies → the depth that it counts for

        def count(name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            result, found = forward(*args, **kwargs), {}
            for tensor in result_tensors(result):
                place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
                depth = min(_depth(name), last.get(place, _depth(name)))  # a block gives what its last module gave
                sizes[last.get(place, depth)] -= size * (place in last)
                sizes[depth] += size
                found[place] = depth
            last.clear()
            last.update(found)
            return result

        with _intercepted(self.dense, {name for name, _ in self.dense.named_modules() if name}, count):
            run(self.dense)
        return max(d for d in (0, *sizes) if sum(size for depth, size in sizes.items() if depth <= d) <= memory)

    def _record(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        inputs = tree_leaves((args, kwargs))  # before the call, which may change lists that it is given
        result = forward(*args, **kwargs)
        versions = [tensor._version for tensor in result_tensors(result)]
        self._calls[name].append(Given(inputs, tree_map(lambda leaf: leaf, result), versions))
        return result

    def _answer(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        inputs = tree_leaves((args, kwargs))
        for given in self._calls[name]:
            if given.is_intact and given.was_given(inputs):
                return tree_map(lambda leaf: leaf, given.result)
        return forward(*args, **kwargs)


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _same_leaf(one: Any, other: Any) -> bool:
    """Whether a call makes the same of both; what is no number and no tensor must be the same object."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or _same(one, other)
    return one is other or (isinstance(one, int | float | str) and type(one) is type(other) and one == other)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _changed(dense: nn.Module, small: nn.Module, plan: PrunePlan) -> set[str]:
    """The modules of `small` that are not those of the dense net, and all that hold one of them."""
    now = named_tensors(small)
    tensors = {name for name, before in named_tensors(dense).items() if not _same(before, now[name])}
    owners = {name.rpartition(".")[0] for name in (*tensors, *plan.keep)} | plan.attributes.keys()
    parts = [owner.split(".") for owner in owners]
    return {"", *(".".join(words[:end]) for words in parts for end in range(1, len(words) + 1))}


@contextmanager
def _intercepted(network: nn.Module, names: set[str], call: Call) -> Iterator[None]:
    """Within, calls of these modules go through `call`."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            if name in names and "forward" not in vars(module) and not isinstance(module, torch.jit.ScriptModule):
                _intercept(module, name, call)
                stack.callback(delattr, module, "forward")
        yield


def _intercept(module: nn.Module, name: str, call: Call) -> None:
    forward = module.forward
    module.forward = lambda *args, **kwargs: call(name, forward, args, kwargs)
