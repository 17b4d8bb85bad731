"""One streamed pass over calibration batches, which collects what all statistics need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.calibration.evidence import Evidence
from dcodp.calibration.statistic import Quantity, seed_of
from dcodp.calibration.watch import Read, Watch
from dcodp.errors import InputError
from dcodp.graph.tracing import call_arguments

Loss = Callable[[Any], "Tensor | Mapping[str, Tensor]"]


def gather(
    evidence: Evidence,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    loss: Loss | None = None,
    after_batch: Callable[[Evidence], None] | None = None,
) -> None:
    """Run over calibration batches and add to the evidence what its statistics want to see.

    `forward` runs the network on a batch, in evaluation mode and without gradients. `loss` gives the scalar loss of a
    batch, for statistics of gradients, or a dictionary of it ("total") and of its part about "boxes"; the network is
    then in training mode but for its batch norms, which keep using (and do not touch) their running statistics.
    Batches that the evidence already holds are skipped, so that an interrupted pass can go on. Modes, parameters and
    random generators are left as found.
    """
    differentiated = bool(evidence.wanted("differentiated"))
    if differentiated and loss is None:
        raise InputError("gradients are asked for; give a loss and labelled batches")
    watching = evidence.wanted("produced") or evidence.wanted("read")
    with _modes_kept(evidence.subject.network):
        for number, batch in enumerate(batches):
            if number < evidence.batches:
                continue
            if watching:
                _watched_forward(evidence, lambda batch=batch: forward(batch), number)
            if differentiated and loss is not None:
                seed = seed_of(evidence.subject.seed, number)
                _differentiated_loss(evidence, lambda batch=batch: loss(batch), seed)
            evidence.batches = number + 1
            if after_batch is not None:
                after_batch(evidence)


def forward_of(network: nn.Module) -> Callable[[Any], Any]:
    """A pass of inputs as `trace` takes them: a tensor, a tuple or a dictionary."""
    return partial(_run, network)


def _run(network: nn.Module, inputs: Any) -> Any:
    args, kwargs = call_arguments(inputs)
    return network(*args, **kwargs)


def _watched_forward(evidence: Evidence, forward: Callable[[], Any], number: int) -> None:
    subject = evidence.subject

    def on_map(name: str, maps: Tensor) -> None:
        for statistic in evidence.wanting("produced", name):
            statistic.on_map(evidence.sums[statistic], subject, name, maps)

    def on_read(read: Read) -> None:
        if read.remade and not _same_inputs(evidence, read):
            return
        for statistic in evidence.wanting("read", read.name):
            statistic.on_read(evidence.sums[statistic], subject, read)

    produced, read = evidence.wanted("produced"), evidence.wanted("read")
    watch = Watch(subject.network, produced, on_map, read, on_read, number)
    subject.network.eval()
    with torch.no_grad():
        with watch:
            forward()
        watch.flush()


def _same_inputs(evidence: Evidence, read: Read) -> bool:
    """Whether the parameter that a weight was made of has an input channel for each that the weight reads."""
    subject = evidence.subject
    sizes = {subject.graph.shapes[read.name][site.dim] for _, site in subject.sites("in").get(read.name, ())}
    return sizes == {read.x.size(1)}


def _differentiated_loss(evidence: Evidence, loss: Callable[[], Tensor | Mapping[str, Tensor]], seed: int) -> None:
    """One loss and its gradients in the weights; what is drawn at random (proposals, dropout) is seeded."""
    network = evidence.subject.network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    names = sorted(evidence.wanted("differentiated"))
    weights = [evidence.subject.parameters[name] for name in names]
    device = weights[0].device
    with _all_trainable(weights), torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        found = _gradients(loss(), weights, {s.quantity() for s in evidence.sums if evidence.differentiates(s)})
    for quantity, grads in found.items():
        for name, weight, grad in zip(names, weights, grads, strict=True):
            if grad is not None:
                for statistic in evidence.wanting("differentiated", name):
                    if statistic.quantity() == quantity:
                        statistic.on_gradient(evidence.sums[statistic], evidence.subject, name, weight, grad)


def _gradients(
    loss: Tensor | Mapping[str, Tensor], weights: Sequence[nn.Parameter], wanted: Collection[Quantity]
) -> dict[Quantity, tuple[Tensor | None, ...]]:
    """The gradients of all quantities that are wanted; the graph is kept as long as another needs it."""
    losses = {"total": loss} if isinstance(loss, Tensor) else loss
    if "boxes" in wanted and "boxes" not in losses:
        raise InputError("the loss's part about boxes is asked for; give a loss that returns a dictionary with 'boxes'")
    if not all(bool(value.isfinite()) for value in losses.values()):
        raise InputError("the loss on a calibration batch is not finite; check the weights and the labels")
    found: dict[Quantity, tuple[Tensor | None, ...]] = {}
    if "boxes" in wanted:
        found["boxes"] = torch.autograd.grad(losses["boxes"], weights, allow_unused=True, retain_graph=True)
    if "total" in wanted:
        found["total"] = torch.autograd.grad(losses["total"], weights, allow_unused=True, retain_graph="flow" in wanted)
    if "flow" in wanted:
        grads = torch.autograd.grad(losses["total"], weights, allow_unused=True, create_graph=True)
        norm = torch.stack([grad.square().sum() for grad in grads if grad is not None]).sum() / 2
        found["flow"] = _second_derivatives(norm, weights)
    return found


def _second_derivatives(norm: Tensor, weights: Sequence[nn.Parameter]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(norm, weights, allow_unused=True)
    except RuntimeError as error:  # some operations, RoI align among them, can be differentiated once only
        raise InputError(f"the loss has no second derivatives ({error}); take a criterion of first ones") from None


@contextmanager
def _modes_kept(network: nn.Module) -> Iterator[None]:
    """Every module is in the mode it was in before."""
    before = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _all_trainable(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    frozen = [weight for weight in weights if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
