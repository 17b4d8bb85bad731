"""Models as they come out of other tools: wrapped, with masks kept, holding compiled functions and results."""

import functools

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn.utils import prune as masks

import dcodp
from dcodp.errors import InputError


def small_net():
    return nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, 3), nn.ReLU(), conv(8, 4)).eval()


def planned(model):
    graph = dcodp.trace(model, (IMAGE.float(),))
    scores = {group.name: torch.rand(group.channels) for group in graph.groups}
    return graph, scores, dcodp.select(graph, scores, ratio=0.5)


MASKS = {
    "single weights": lambda m: masks.l1_unstructured(m[0], "weight", amount=0.3),
    "whole channels": lambda m: masks.ln_structured(m[0], "weight", amount=0.25, n=2, dim=0),
    "whole inputs": lambda m: masks.ln_structured(m[3], "weight", amount=0.25, n=2, dim=1),
    "biases": lambda m: masks.random_unstructured(m[3], "bias", amount=0.3),
    "twice": lambda m: [masks.l1_unstructured(m[0], "weight", amount=0.3) for _ in range(2)],
    "of several layers": lambda m: masks.global_unstructured([(m[0], "weight"), (m[3], "weight")],
                                                             pruning_method=masks.L1Unstructured, amount=0.4),
    "of nothing": lambda m: masks.identity(m[0], "weight"),
    "of a norm": lambda m: masks.random_unstructured(m[1], "weight", amount=0.3),
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks_that_were_kept_are_cut_with_their_weights(mask):
    model = small_net()
    mask(model)
    graph, small = removed_at_half(model)
    assert [group.channels for group in graph.groups] == [8, 8]
    assert small[0](IMAGE).shape[1] == 4 and all(m.shape == (4,) or m.shape[0] == 4 for m in small[0].buffers())


@pytest.mark.parametrize("wrap, prefix", [(nn.DataParallel, "module."), (torch.compile, "_orig_mod.")])
def test_a_wrapper_between_two_models_is_named(wrap, prefix, tmp_path):
    bare, wrapped = small_net(), wrap(small_net())
    graph, scores, plan = planned(bare)
    wrapped_graph, wrapped_scores, wrapped_plan = planned(wrapped)
    assert all(name.startswith(prefix) for name in wrapped_scores)
    dcodp.save(dcodp.prune(bare, plan), plan, tmp_path / "small.safetensors")
    tries = [lambda: dcodp.prune(wrapped, plan), lambda: dcodp.prune(bare, wrapped_plan),
             lambda: dcodp.load(wrapped, tmp_path / "small.safetensors"), lambda: dcodp.select(graph, wrapped_scores),
             lambda: dcodp.select(wrapped_graph, scores)]  # fmt: skip
    for attempt in tries:
        with pytest.raises(InputError, match=f'"{prefix}" in front.* take its .{prefix[:-1]} throughout'):
            attempt()


def test_a_plan_of_another_architecture_names_no_wrapper():
    _, _, plan = planned(small_net())
    with pytest.raises(InputError, match="use the architecture it was made for"):
        dcodp.prune(nn.Sequential(nn.Identity(), conv(3, 8)), plan)


@torch.jit.script
def compiled(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


class Settings:
    """A plain object that holds what it was given."""

    def __init__(self, held):
        self.held = held


HOLDERS = {
    "attribute": (compiled, lambda held: held),
    "dictionary": ({"act": compiled}, lambda held: held["act"]),
    "list in a tuple": (([compiled], 0), lambda held: held[0][0]),
    "partial": (functools.partial(compiled), lambda held: held),
    "object": (Settings([compiled]), lambda held: held.held[0]),
}


@pytest.mark.parametrize("held, taken", HOLDERS.values(), ids=HOLDERS)
def test_compiled_functions_may_be_held_in_anything(held, taken):
    model = Net(lambda m, x: m.b(taken(m.held)(m.a(x))), a=conv(3, 8), b=conv(8, 4))
    model.held = held
    graph, small = removed_at_half(model)
    assert [group.channels for group in graph.groups] == [8] and small.b.in_channels == 4


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: [t], lambda t: {"last": (t,)}, lambda t: Settings(t)],
                         ids=["attribute", "list", "dictionary", "object"])  # fmt: skip
def test_results_that_a_model_keeps_do_not_hinder_a_copy(hold):
    def forward(m, x):
        y = m.a(x)
        m.kept = hold(y)
        return m.b(y)

    model = Net(forward, a=conv(3, 8), b=conv(8, 4)).double()
    model(IMAGE).sum().backward()  # as a training leaves it, with a history
    graph, small = removed_at_half(model)
    assert [group.channels for group in graph.groups] == [8] and small.b.in_channels == 4
