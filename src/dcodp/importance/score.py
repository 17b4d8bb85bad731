"""Scores of coupling groups: one streamed pass collects what all chosen criteria need, then each group is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.graph import CouplingGraph
from dcodp.graph.tracing import call_arguments
from dcodp.importance.collector import seed_of
from dcodp.importance.observe import Read, Watch
from dcodp.importance.statistics import LOCATIONS, Scores, Statistics


def observe(
    statistics: Statistics,
    batches: Iterable[Any],
    forward: Callable[[Any], Any],
    loss: Callable[[Any], Tensor] | None = None,
    after_batch: Callable[[Statistics], None] | None = None,
) -> None:
    """Run over calibration batches and add to the statistics what the criteria need.

    `forward` runs the network on a batch, in evaluation mode and without gradients. `loss` gives the scalar loss of a
    batch, for criteria that need gradients; the network is then in training mode but for its batch norms, which keep
    using (and do not touch) their running statistics. Batches that the statistics already hold are skipped, so that
    an interrupted pass can go on. Modes, parameters and random generators are left as found.
    """
    differentiated = statistics.weights("differentiated")
    if differentiated and loss is None:
        names = [name for name, chosen in statistics.criteria.items() if chosen.needs == "gradients"]
        raise InputError(f"importance={', '.join(names)} needs gradients; give a loss and labelled batches")
    watching = statistics.weights("produced") or statistics.weights("read")
    with _modes_kept(statistics.network):
        for number, batch in enumerate(batches):
            if number < statistics.batches:
                continue
            for collector in statistics.distinct.values():
                collector.start(number)
            if watching:
                _watched_forward(statistics, lambda batch=batch: forward(batch))
            if differentiated and loss is not None:
                seed = seed_of(statistics.setting.seed, number)
                _differentiated_loss(statistics, lambda batch=batch: loss(batch), sorted(differentiated), seed)
            statistics.batches = number + 1
            if after_batch is not None:
                after_batch(statistics)


def _watched_forward(statistics: Statistics, forward: Callable[[], Any]) -> None:
    collectors = list(statistics.distinct.values())

    def on_map(name: str, maps: Tensor) -> None:
        for collector in collectors:
            if name in collector.produced:
                collector.on_map(name, maps)

    def on_read(read: Read) -> None:
        for collector in collectors:
            if read.name in collector.read:
                collector.on_read(read)

    watch = Watch(statistics.network, statistics.weights("produced"), on_map, statistics.weights("read"), on_read)
    statistics.network.eval()
    with torch.no_grad():
        with watch:
            forward()
        watch.flush()


def _differentiated_loss(statistics: Statistics, loss: Callable[[], Tensor], names: Sequence[str], seed: int) -> None:
    """One loss and its gradients in the weights `names`; what is drawn at random (proposals, dropout) is seeded."""
    network = statistics.network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    parameters = dict(network.named_parameters())
    weights = [parameters[name] for name in names]
    device = weights[0].device
    with _all_trainable(weights), torch.enable_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        value = loss()
        if not bool(value.isfinite()):
            raise InputError("the loss on a calibration batch is not finite; check the weights and the labels")
        grads = torch.autograd.grad(value, weights, allow_unused=True)
    for name, weight, grad in zip(names, weights, grads, strict=True):
        for collector in statistics.distinct.values():
            if grad is not None and name in collector.differentiated:
                collector.on_gradient(name, weight, grad)


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


def _run(network: nn.Module, inputs: Any) -> Any:
    args, kwargs = call_arguments(inputs)
    return network(*args, **kwargs)


@overload
def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: str,
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> Scores: ...


@overload
def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: Sequence[str],
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> dict[str, Scores]: ...


def score(
    network: nn.Module,
    graph: CouplingGraph,
    names: str | Sequence[str],
    batches: Iterable[Any] = (),
    *,
    forward: Callable[[Any], Any] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    aggregate: str = "sum",
    seed: int = 0,
    locations: int = LOCATIONS,
) -> Scores | dict[str, Scores]:
    """{group name: scores [channels] float64} by one criterion; for a list of them, {criterion: such a dictionary}.

    `batches` are the network's inputs, each a tensor, a tuple or a dict as for `trace`, or whatever `forward` takes;
    criteria on weights alone need none.
    Several criteria share one pass and score exactly as each would alone. `loss` of a batch is for `taylor`.
    Groups about which a criterion says nothing (no batch norm for slimming, no consumer for thinet) are absent.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    statistics = Statistics(network, graph, chosen, aggregate=aggregate, seed=seed, locations=locations)
    if statistics.needs_data:
        if isinstance(batches, Tensor | Mapping):
            raise InputError("batches are a sequence of batches; put a single one into a list")
        observe(statistics, batches, forward or partial(_run, network), loss)
    found = {name: statistics.group_scores(name) for name in chosen}
    return found[names] if isinstance(names, str) else found
