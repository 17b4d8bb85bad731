"""The oracle: a pruned model must equal its dense model with the removed channels zeroed at every site."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dcodp.graph.recording import call_arguments
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.prune import named_tensors

Outputs = Callable[[Any], Any]


def zeroed(model: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of the dense model with every slice that the plan removes set to 0, in producers and consumers."""
    twin = copy.deepcopy(model)
    tensors = named_tensors(twin)
    with torch.no_grad():
        for name, dims in plan.keep.items():
            for dim, kept in dims.items():
                gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                gone[kept] = False
                tensors[name].index_fill_(dim, gone.nonzero().flatten().to(tensors[name].device), 0)
    return twin


def assert_equivalent(
    model: nn.Module,
    pruned: nn.Module,
    plan: PrunePlan,
    inputs: Any,
    *,
    outputs: Outputs | None = None,
    tolerance: float | None = None,
) -> float:
    """Raises AssertionError unless the pruned model computes what the zeroed dense model computes.

    `inputs`: as for `trace`; `outputs`: the part of the result to compare. `tolerance`: largest difference relative
    to the largest output (default by dtype: 1e-11 for float64, 1e-4 for float32, 3e-2 below). Returns the error.
    """
    expected = run(zeroed(model, plan), inputs, outputs)
    found = run(pruned, inputs, outputs)
    assert len(expected) == len(found), f"{len(found)} output tensors instead of {len(expected)}"
    worst = 0.0
    for i, (want, have) in enumerate(zip(expected, found, strict=True)):
        assert want.shape == have.shape, f"output {i} has shape {list(have.shape)} instead of {list(want.shape)}"
        error = relative_error(want, have)
        limit = default_tolerance(want.dtype) if tolerance is None else tolerance
        assert error <= limit, f"output {i} differs by {error:.1e} (relative), more than {limit:.1e}"
        worst = max(worst, error)
    return worst


def run(model: nn.Module, inputs: Any, outputs: Outputs | None = None) -> list[Tensor]:
    """All tensors of a model's result, in evaluation mode."""
    args, kwargs = call_arguments(inputs)
    was_training = model.training
    try:
        with torch.no_grad():
            result = model.eval()(*args, **kwargs)
    finally:
        model.train(was_training)
    return [t for t in tree_leaves(result if outputs is None else outputs(result)) if isinstance(t, Tensor)]


def relative_error(want: Tensor, have: Tensor) -> float:
    """Largest difference over largest magnitude."""
    if want.numel() == 0:
        return 0.0
    want, have = want.double(), have.double()
    if not bool(torch.isfinite(have).all()):
        return float("inf") if bool(torch.isfinite(want).all()) else 0.0
    scale = float(want.abs().max())
    return float((want - have).abs().max()) / scale if scale else float((want - have).abs().max())


def default_tolerance(dtype: torch.dtype) -> float:
    return {torch.float64: 1e-11, torch.float32: 1e-4}.get(dtype, 3e-2)


def enliven(model: nn.Module, inputs: Any, seed: int = 0) -> nn.Module:
    """Give a freshly built model live signals, in place: else an oracle can pass because nothing is left to see.

    Random weights with arbitrary batch-norm statistics let signals die within a few layers. Biases, scales and
    batch-norm statistics are drawn at random, then every batch norm is set from what it sees, in order of execution,
    so that activations stay of order one.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                noise = torch.rand(tensor.shape, generator=generator).to(tensor)
                tensor.copy_(noise - 0.5 if name.endswith(("bias", "mean")) else noise + 0.5)
        handles = [m.register_forward_pre_hook(_calibrate) for m in model.modules() if _has_statistics(m)]
        try:
            run(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
    return model


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_var", None), Tensor)


def _calibrate(module: Any, args: tuple[Any, ...]) -> None:
    """Running statistics near those of the input, but not equal to them, so that mean and variance both matter."""
    x = args[0]
    dims = [d for d in range(x.dim()) if d != 1]
    module.running_mean.copy_(x.mean(dims) * 0.9)
    module.running_var.copy_(x.var(dims, unbiased=False) * 1.2 + 1e-3)
