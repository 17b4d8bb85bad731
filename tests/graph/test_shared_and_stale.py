"""Modules with several names, parameters with several owners, numbers that only fusing reads, tensors to be saved."""

import types

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn
from torch.nn import functional as F

import dcodp


def block(c=8):
    return nn.Sequential(conv(c, c, 3), nn.BatchNorm2d(c), nn.ReLU())


def head_of_levels():
    """One head under two names of a list, on two levels."""
    head = block()
    model = Net(lambda m, x: m.out(sum(h(m.a(x)) for h in m.heads)), a=conv(3, 8), out=conv(8, 2))
    model.heads = nn.ModuleList([head, head])
    return model


def attribute_and_item():
    model = Net(lambda m, x: m.out(m.stages[1](m.first(m.a(x)))), a=conv(3, 8), out=conv(8, 2))
    model.stages = nn.ModuleList([block(), block()])
    model.first = model.stages[0]
    return model


def norms_of_their_own():
    norms = {"n1": nn.BatchNorm2d(8), "n2": nn.BatchNorm2d(8)}
    return Net(
        lambda m, x: m.out(m.n1(m.b(y := m.a(x))) + m.n2(m.b(y * 2))),
        a=conv(3, 8),
        b=conv(8, 8),
        out=conv(8, 2),
        **norms,
    )


def slice_of_a_sequence():
    model = Net(lambda m, x: m.out(m.part(m.a(x)) + m.whole(m.a(x))), a=conv(3, 8), out=conv(8, 2))
    model.whole = nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8))
    model.part = model.whole[:1]
    return model


def tied_weights():
    model = Net(lambda m, x: m.out(m.b(m.a(x)) + m.c(m.a(x))), a=conv(3, 8), b=conv(8, 8), c=conv(8, 8), out=conv(8, 2))
    model.c.weight = model.b.weight
    return model


def tied_norm():
    model = Net(lambda m, x: m.out(m.n1(m.a(x)) + m.n2(m.b(x))), a=conv(3, 8), b=conv(3, 8), out=conv(8, 2),
                n1=nn.BatchNorm2d(8), n2=nn.BatchNorm2d(8))  # fmt: skip
    model.n2.weight, model.n2.running_var = model.n1.weight, model.n1.running_var
    return model


def dictionary():
    model = Net(lambda m, x: m.out(m.named["one"](m.a(x)) + m.named["two"](m.a(x))), a=conv(3, 8), out=conv(8, 2))
    shared = conv(8, 8)
    model.named = nn.ModuleDict({"one": shared, "two": shared})
    return model


def there_and_back():
    """A weight that is applied in both directions."""

    def forward(m, x):
        return m.out(F.conv_transpose2d(F.conv2d(m.a(x), m.b.weight), m.b.weight))

    return Net(forward, a=conv(3, 8), b=conv(8, 6, bias=False), out=conv(8, 2))


def recursive():
    model = Net(lambda m, x: m.out(m.b(m.b(m.b(m.a(x))).relu())), a=conv(3, 8), b=conv(8, 8, 3), out=conv(8, 2))
    return model


SHARED = (head_of_levels, attribute_and_item, norms_of_their_own, slice_of_a_sequence, tied_weights, tied_norm,
          dictionary, there_and_back, recursive)  # fmt: skip


@pytest.mark.parametrize("build", SHARED)
def test_shared(build, tmp_path):
    model = build()
    graph, small = removed_at_half(model)
    assert "a" in {layer for g in graph.groups for layer in g.layers} and small.a.out_channels == 4
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups})
    small = dcodp.prune(model, plan)
    dcodp.save(small, plan, tmp_path / "small.safetensors")
    assert torch.equal(dcodp.load(model, tmp_path / "small.safetensors")(IMAGE), small(IMAGE))
    assert len(list(small.parameters())) == len(list(model.parameters()))


class Fused(nn.Module):
    """Two branches that `fuse` merges by numbers which `forward` never reads."""

    def __init__(self, c, **numbers):
        super().__init__()
        self.three, self.one = conv(c, c, 3, groups=2), conv(c, c, groups=2)
        vars(self).update(numbers)

    def forward(self, x):
        return self.three(x) + self.one(x)


NUMBERS = {
    "c1": (8, 4),
    "in_chs": (8, 4),
    "out_planes": (8, 4),
    "dim": (8, 4),
    "groups": (2, 1),
    "num_groups": (2, 1),
    "unrelated": (7, 7),
    "one": (1, 1),
}


@pytest.mark.parametrize("name", [n for n in NUMBERS if n != "one"])
def test_numbers_that_only_fusing_reads(name):
    dense, wanted = NUMBERS[name]
    graph, small = removed_at_half(nn.Sequential(conv(3, 8), Fused(8, **{name: dense}), conv(8, 2)))
    found = getattr(small[1], name)
    assert found == wanted or any(f"1.{name} = {dense} is not read" in note for note in graph.notes)
    assert small[1].three.out_channels == 4


def test_two_meanings_of_one_number_are_named():
    class Narrowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.width, self.a, self.b = 8, conv(8, 8), conv(8, 8)

        def forward(self, x):
            return self.b(self.a(x).softmax(1))

    graph, small = removed_at_half(nn.Sequential(conv(3, 8), Narrowing(), conv(8, 2)))
    assert small[1].width == 8 and any("1.width = 8 is not read" in note for note in graph.notes)


SAVED = {
    "tensor": lambda t: t,
    "list": lambda t: [t, t + 1],
    "tuple": lambda t: (t,),
}


@pytest.mark.parametrize("kind", SAVED)
def test_plain_tensors_come_back(kind, tmp_path):
    def forward(m, x):
        return m.out(m.a(x)) * (m.kept if isinstance(m.kept, torch.Tensor) else m.kept[-1])

    model, other = (Net(forward, a=conv(3, 8), out=conv(8, 2)).double().eval() for _ in range(2))
    model.kept, other.kept = SAVED[kind](torch.rand(1).double()), SAVED[kind](torch.zeros(1).double())
    plan = dcodp.select(dcodp.trace(model, (IMAGE,)), {"a": torch.rand(8)})
    small = dcodp.prune(model, plan)
    dcodp.save(small, plan, tmp_path / "net.safetensors")
    assert torch.equal(dcodp.load(other, tmp_path / "net.safetensors")(IMAGE), small(IMAGE))


@pytest.mark.parametrize(
    "held",
    [
        {"a": torch.rand(2)},
        [{"a": torch.rand(2)}],
        types.SimpleNamespace(text=torch.rand(2)),
        [torch.rand(2), "name"],
        {"deep": types.SimpleNamespace(text=[torch.rand(2)])},
    ],
)
def test_tensors_inside_other_objects_are_refused(held, tmp_path):
    model = nn.Sequential(conv(3, 8), conv(8, 2)).eval()
    plan = dcodp.select(dcodp.trace(model, (IMAGE.float(),)), {"0": torch.rand(8)})
    small = dcodp.prune(model, plan)
    small.held = held
    with pytest.raises(dcodp.InputError, match="held is a"):
        dcodp.save(small, plan, tmp_path / "net.safetensors")
