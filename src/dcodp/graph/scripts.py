"""Compiled functions (torch.jit.script) that the model calls: what they read of sizes cannot be seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dcodp.graph.recording import Recorder
from dcodp.graph.rules import blind_to_sizes
from dcodp.graph.sizes import traced_in, without_origins

Script = torch.jit.ScriptFunction
HARMLESS = {"prim::Constant", "prim::If", "prim::device", "prim::dtype", "prim::ListConstruct", "prim::TupleConstruct",
            "prim::TupleUnpack", "prim::unchecked_cast", "aten::dim", "aten::__is__", "aten::__isnot__",
            "aten::__not__"}  # fmt: skip


@contextmanager
def scripts_watched(recorder: Recorder) -> Iterator[None]:
    """While it lasts, tensors given to a compiled function that may read sizes stay as they are."""
    original = Script.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        for value in [*traced_in(args), *traced_in(kwargs)]:
            value.note_value()
        if not all(map(_is_harmless, _nodes(self.inlined_graph))):
            recorder.fix_all((args, kwargs), f"{self.name} is compiled (torch.jit) and may read sizes")
        with torch._C.DisableTorchFunction():  # its operations are watched as PyTorch executes them, and only so
            return original(self, *without_origins(args), **without_origins(kwargs))

    Script.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        Script.__call__ = original  # type: ignore[method-assign]


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_harmless(node: Any) -> bool:
    return node.kind() in HARMLESS or blind_to_sizes(node.kind())
