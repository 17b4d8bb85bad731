"""`trace`: run a copy of a model under observation, then solve for what can be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dcodp.copying import copied
from dcodp.errors import InputError
from dcodp.graph.building import build_graph
from dcodp.graph.calls import CallMode
from dcodp.graph.coupling import CouplingGraph
from dcodp.graph.dispatching import LabelMode
from dcodp.graph.library import library_numbers, library_rules, library_watched
from dcodp.graph.modules import follow_module_sizes, is_library_module, trace_attributes
from dcodp.graph.recognising import watch_norms
from dcodp.graph.recording import OUTPUT, Recorder
from dcodp.graph.scripts import scripts_watched
from dcodp.graph.sizes import TracedInt
from dcodp.graph.solving import solve

Outputs = Callable[[Any], Any]


def trace(network: nn.Module, example_inputs: Any, outputs: Outputs | None = None, **named: Any) -> CouplingGraph:
    """Record a forward pass and derive which channels are coupled.

    `example_inputs`: a tuple of positional arguments (a tensor stands for a tuple of one, a dict for keyword
    arguments). `outputs`: from the model's result, the part whose shape and values must stay (default: everything).
    The model is left untouched: a deep copy runs without gradients, once in evaluation mode and once, if it can on
    these inputs, in training mode, so that the pruned model trains too.

    Raises InputError where the model cannot be copied, does not run on the inputs or gives no tensors.
    """
    args, kwargs = call_arguments(example_inputs, named)
    try:
        graph, stuck = _traced(network, args, kwargs, outputs, frozenset())
    except InputError as error:
        if TracedInt.__name__ not in str(error):  # the code hands sizes to something that takes nothing but ints
            raise
        return _traced(network, args, kwargs, outputs, frozenset(), plain_sizes=True)[0]
    if stuck:
        other, _ = _traced(network, args, kwargs, outputs, stuck)
        graph = max(graph, other, key=_removable)
    return graph


def _removable(graph: CouplingGraph) -> int:
    """How many parameters can go."""
    return graph.parameter_count() - graph.parameter_count({group.name: [0] for group in graph.groups})


def _traced(
    network: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    outputs: Outputs | None,
    whole_heads: frozenset[str],
    plain_sizes: bool = False,
) -> tuple[CouplingGraph, frozenset[str]]:
    """The graph, and the modules whose views could have shrunk in another way than in the one that is stuck."""
    twin = _copied(network).eval()
    recorder = Recorder(twin, whole_heads)
    recorder.uses.plain = plain_sizes
    dense = {} if plain_sizes else trace_attributes(recorder.named_modules, recorder.uses)
    recorder.uses.made.clear()  # the copy keeps those
    watch_norms(recorder)
    observing = (_modules_tracked(twin, recorder), library_watched(recorder), _no_fast_path())
    with ExitStack() as stack, _random_state_kept(network), torch.no_grad():
        for context in observing:
            stack.enter_context(context)
        try:
            result = _observed(twin, recorder, args, kwargs)
        except Exception as error:
            recorder.finish()
            raise InputError(
                f"the model does not run on the example inputs: {type(error).__name__}: {error}"
            ) from error
        kept = result_tensors(result if outputs is None else outputs(result))
        if not kept:
            raise InputError("no tensors were found in the model's result; give outputs=, a function that returns them")
        recorder.fix_all(kept, OUTPUT)
        _trace_training(twin, recorder, args, kwargs, everything=outputs is None)
    recorder.finish()
    numbers = library_numbers(recorder)
    rules = [*library_rules(recorder, numbers), *recorder.rules]
    components, attributes = solve(rules, recorder.labels, {**dense, **numbers})
    stuck = recorder.stuck(components)
    recorder.followings += follow_module_sizes(recorder.named_modules)
    return build_graph(network, recorder, components, attributes), stuck


def _observed(twin: nn.Module, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with scripts_watched(recorder), LabelMode(recorder), CallMode(recorder):
        return twin(*args, **kwargs)


def _trace_training(
    twin: nn.Module, recorder: Recorder, args: tuple[Any, ...], kwargs: dict[str, Any], everything: bool
) -> None:
    """The same in training mode, where other heads may run and other sizes may be asked for.

    Results must stay here too, except features that are passed along: those from which the model itself goes on.
    Detectors that want targets do not run on images alone; then only the evaluation pass counts, and a note says so.
    """
    recorder.counting = False
    recorder.modules[1:] = []
    for module in twin.modules():
        module.training = not _keeps_evaluating(module)
    try:
        result = _observed(twin, recorder, args, kwargs)
    except Exception as error:
        first_line = str(error).strip().splitlines()[:1]
        recorder.notes.append(
            "the training pass does not run on the example inputs "
            f"({': '.join([type(error).__name__, *first_line])[:200]}) and was left out"
        )
        return
    passed_on = recorder.operations.feeding_layers()
    for tensor in result_tensors(result):
        if everything or getattr(tensor, "_dcodp_operation", None) not in passed_on:
            recorder.fix_all(tensor, f"{OUTPUT} in training")


def _keeps_evaluating(module: nn.Module) -> bool:
    """Batch norm, dropout and the like do the same to channels in both modes, without statistics or noise in this."""
    kinds = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    return is_library_module(module) or isinstance(module, kinds)


def result_tensors(result: Any) -> list[Tensor]:
    """All tensors in nested containers, dataclasses and plain objects, each once, in order."""
    found: dict[int, Tensor] = {}
    seen: dict[int, Any] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            found.setdefault(id(value), value)
        elif id(value) not in seen and not isinstance(value, str | bytes | int | float | nn.Module | type):
            seen[id(value)] = value
            if isinstance(value, Mapping):
                parts = list(value.values())
            elif isinstance(value, list | tuple | set | frozenset):
                parts = list(value)
            else:
                parts = list(getattr(value, "__dict__", {}).values())
            for part in parts:
                visit(part)

    visit(result)
    return list(found.values())


def _copied(network: nn.Module) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise InputError(f"a {type(network).__name__} cannot be traced; give the torch.nn.Module as Python code")
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its module {name} is compiled" if name else "it is compiled"
            kind = type(network).__name__
            raise InputError(f"a {kind} cannot be traced; give the torch.nn.Module as Python code ({what}, torch.jit)")
    try:
        return copied(network)
    except Exception as error:
        raise InputError(
            f"the model cannot be copied ({type(error).__name__}: {error}); "
            "run it under torch.no_grad(), so that its modules keep no results with a history"
        ) from error


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
def _random_state_kept(network: nn.Module) -> Iterator[None]:
    """Noise drawn during the trace leaves the caller's random numbers as they were."""
    devices = {p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        yield


@contextmanager
def _modules_tracked(network: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Keep `recorder.modules` at the stack of running modules."""
    handles = []
    for name, module in network.named_modules():

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
