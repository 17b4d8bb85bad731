"""The oracle: a pruned model must equal its dense model with the removed channels zeroed at every site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.copying import copied
from dcodp.errors import InputError
from dcodp.graph.tracing import call_arguments, result_tensors
from dcodp.pruning.plan import PrunePlan
from dcodp.pruning.slicing import named_tensors

Outputs = Callable[[Any], Any]


def zeroed(network: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of the dense model with every slice that the plan removes set to 0, in producers and consumers."""
    twin = copied(network)
    tensors = named_tensors(twin)
    with torch.no_grad():
        for name, dims in plan.keep.items():
            for dim, kept in dims.items():
                gone = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                gone[kept] = False
                tensors[name].index_fill_(dim, gone.nonzero().flatten().to(tensors[name].device), 0)
    return twin


def assert_equivalent(
    network: nn.Module,
    pruned: nn.Module,
    plan: PrunePlan,
    inputs: Any,
    *,
    outputs: Outputs | None = None,
    heads: Sequence[str] = (),
    tolerance: float | None = None,
) -> float:
    """Raises AssertionError unless the pruned model computes what the zeroed dense model computes.

    `inputs`: as for `trace`; `outputs`: the part of the result to compare. `heads`: names of modules whose outputs
    are compared too, for models whose result shows little of what was computed (proposals, non-maximum suppression).
    `tolerance`: largest difference relative to the largest output; by default what rounding does to this net, found
    by moving the zeroed dense net's parameters by a rounding error each (`rounding_noise`). Returns the error. Raises
    InputError for a head that the model does not have.
    """
    dense = zeroed(network, plan)
    expected = run(dense, inputs, outputs, heads)
    found = run(pruned, inputs, outputs, heads)
    assert len(expected) == len(found), f"{len(found)} output tensors instead of {len(expected)}"
    noise = rounding_noise(dense, expected, inputs, outputs, heads) if tolerance is None else [tolerance] * len(found)
    worst = 0.0
    for i, (want, have) in enumerate(zip(expected, found, strict=True)):
        assert want.shape == have.shape, f"output {i} has shape {list(have.shape)} instead of {list(want.shape)}"
        error = relative_error(want, have)
        limit = default_tolerance(want.dtype, noise[i]) if tolerance is None else tolerance
        assert error <= limit, f"output {i} differs by {error:.1e} (relative), more than {limit:.1e}"
        worst = max(worst, error)
    return worst


def run(network: nn.Module, inputs: Any, outputs: Outputs | None = None, heads: Sequence[str] = ()) -> list[Tensor]:
    """All tensors of a model's result and of the results of its modules `heads`, in evaluation mode."""
    args, kwargs = call_arguments(inputs)
    was_training = network.training
    with torch.no_grad(), _listening(network, heads) as heard:
        try:
            result = network.eval()(*args, **kwargs)
        finally:
            network.train(was_training)
    return result_tensors([result if outputs is None else outputs(result), heard])


@contextmanager
def _listening(network: nn.Module, heads: Sequence[str]) -> Iterator[list[Any]]:
    """Collects what the named modules return, call by call."""
    modules, heard = dict(network.named_modules()), []
    for name in heads:
        if name not in modules:
            raise InputError(f"the model has no module {name!r} to compare; use a name from named_modules()")
    handles = [modules[n].register_forward_hook(lambda _module, _args, out: heard.append(out)) for n in heads]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def relative_error(want: Tensor, have: Tensor) -> float:
    """Largest difference over largest magnitude."""
    if want.numel() == 0:
        return 0.0
    want, have = want.double(), have.double()
    if not bool(torch.isfinite(have).all()):
        return float("inf") if bool(torch.isfinite(want).all()) else 0.0
    scale = float(want.abs().max())
    return float((want - have).abs().max()) / scale if scale else float((want - have).abs().max())


LOWEST = {torch.float64: 1e-11, torch.float32: 1e-5}  # of the default tolerances; 1e-2 for shorter numbers
HIGHEST = 0.05  # a swapped pair of channels must show
ROOM = 16.0  # how many times the noise that was measured once may be


def default_tolerance(dtype: torch.dtype, noise: float) -> float:
    """How much a right net may differ where rounding changes the dense net's output by `noise` (relative)."""
    return min(max(ROOM * noise, LOWEST.get(dtype, 1e-2)), HIGHEST)


def rounding_noise(
    network: nn.Module,
    expected: Sequence[Tensor],
    inputs: Any,
    outputs: Outputs | None = None,
    heads: Sequence[str] = (),
) -> list[float]:
    """How far each output moves, relative to the largest, when every parameter moves by a rounding error."""
    twin, generator = copied(network), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in {**named_tensors(twin)}.values():
            if tensor.is_floating_point():
                signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
                tensor.add_(tensor * signs, alpha=torch.finfo(tensor.dtype).eps / 2)
    moved = run(twin, inputs, outputs, heads)
    alike = len(moved) == len(expected) and all(a.shape == b.shape for a, b in zip(expected, moved, strict=True))
    return [relative_error(a, b) for a, b in zip(expected, moved, strict=True)] if alike else [0.0] * len(expected)


def enliven(network: nn.Module, inputs: Any, seed: int = 0, without: PrunePlan | None = None) -> nn.Module:
    """Give a freshly built model live signals, in place: else an oracle can pass because nothing is left to see.

    Random weights with arbitrary batch-norm statistics let signals die within a few layers. Vectors (biases, scales,
    batch-norm statistics) and parameters that start out constant are drawn at random; then every convolution and
    linear layer is scaled to outputs of standard deviation 1 and every batch norm is set from what it sees, in order
    of execution. `without`: do so with this plan's channels at 0, so that signals live in the pruned model too.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in _to_randomise(network):
            noise = torch.rand(tensor.shape, generator=generator).to(tensor)
            tensor.copy_(noise - 0.5 if name.endswith(("bias", "mean")) else noise + 0.5)
    twin = network if without is None else zeroed(network, without)
    handles = [m.register_forward_pre_hook(_set_statistics) for m in twin.modules() if _has_statistics(m)]
    handles += [m.register_forward_hook(_Scaling()) for m in twin.modules() if _is_scaled(m)]
    try:
        run(twin, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if without is not None:
        _take_over(network, twin, without)
    return network


def _to_randomise(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Vectors and constants among the parameters, and all that layers with statistics hold."""
    for prefix, module in network.named_modules():
        names = [*module._parameters, *(module._buffers if _has_statistics(module) else ())]
        for name in names:
            tensor = getattr(module, name)
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and (tensor.dim() == 1 or _constant(tensor)):
                yield f"{prefix}.{name}", tensor


def _constant(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_var", None), Tensor)


def _is_scaled(module: nn.Module) -> bool:
    """Layers with a trained weight; fixed ones (the bins of a distribution, say) mean what they are."""
    return isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and module.weight.requires_grad


class _Scaling:
    """Scales a layer's weight at its first call, so that its output has standard deviation 1 without its bias."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, layer: Any, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        spread = float(out.std()) if out.numel() > 1 else 0.0
        if self.done or not 0 < spread < float("inf"):
            return None
        self.done = True
        layer.weight.div_(spread)
        bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (layer.weight.dim() - 2))
        return (out - bias) / spread + bias


def _set_statistics(module: Any, args: tuple[Any, ...]) -> None:
    """Statistics near those of the input, so that mean and variance both matter, but not equal to them.

    On maps of a few pixels a channel's mean is nearly all there is: subtracting all of it would leave little signal,
    and rounding errors would grow from layer to layer.
    """
    x = args[0]
    dims = [d for d in range(x.dim()) if d != 1]
    module.running_mean.copy_(x.mean(dims) / 4)
    module.running_var.copy_(x.var(dims, unbiased=False) + x.square().mean() / 2 + 1e-3)


def _take_over(network: nn.Module, calibrated: nn.Module, plan: PrunePlan) -> None:
    """Copies what was calibrated, except for the coordinates that are zero there because the plan removes them."""
    theirs = named_tensors(calibrated)
    with torch.no_grad():
        for name, tensor in named_tensors(network).items():
            kept = torch.ones_like(tensor, dtype=torch.bool)
            for dim, indices in plan.keep.get(name, {}).items():
                mask = torch.zeros(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
                mask[indices] = True
                kept &= mask.view([-1 if d == dim else 1 for d in range(tensor.dim())])
            tensor.copy_(torch.where(kept, theirs[name], tensor))
