"""Python code that looks at a channel count, caches, compiled functions: the number stays, and the reason is told."""

import functools
import math

import pytest
import torch
from small_nets import IMAGE, Net, conv, removed_at_half
from torch import nn

import dcodp

TABLE = {16: 2.0, 8: 3.0}


@functools.lru_cache
def half(size):
    return size // 2


@torch.jit.script
def scaled(x):
    return x * x.size(1)


@torch.jit.script
def swish(x):
    return x * x.sigmoid()


def net(look):
    def forward(m, x):
        y = m.a(x)
        return m.out(y) * look(y.shape[1])

    return Net(forward, a=conv(3, 16, 3), out=conv(16, 2))


DECISIONS = {
    "greater": lambda c: 2 if c > 10 else 3,
    "not less": lambda c: 2 if not c < 10 else 3,
    "equal": lambda c: 2 if c == 8 else 3,
    "unequal": lambda c: 2 if c != 16 else 3,
    "remainder": lambda c: 2 if c % 16 == 0 else 3,
    "falsy remainder": lambda c: 2 if c % 16 else 3,
    "min": lambda c: min(c, 12),
    "max": lambda c: max(c, 12),
    "float": lambda c: 0.5 * c,
    "float behind": lambda c: c * 0.5,
    "int": lambda c: int(c) / 3,
    "range": lambda c: len(range(c)),
    "log": lambda c: math.log(c),
    "gcd": lambda c: math.gcd(c, 12),
    "sqrt": lambda c: math.sqrt(c),
    "divmod": lambda c: divmod(c, 5)[1],
    "shift": lambda c: c >> 1,
    "text": lambda c: len(f"{c}" * c),
    "key": lambda c: TABLE[c],
    "get": lambda c: TABLE.get(c, 5.0),
    "member": lambda c: 2 if c in {16, 32} else 3,
    "index": lambda c: list(range(20))[c],
    "bits": lambda c: c.bit_length(),
    "tensor": lambda c: torch.tensor(c),
    "arange": lambda c: torch.arange(c).sum(),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_a_number_that_decides_something_stays(name):
    graph, _ = removed_at_half(net(DECISIONS[name]))
    assert graph.groups == [] and "decides something" in graph.frozen[0].reason


@pytest.mark.parametrize("look", [lambda c: 2 if c > 0 else 3, lambda c: 2 if c < 99 else 3, lambda c: 2 if c else 3])
def test_a_question_with_one_answer_decides_nothing(look):
    graph, _ = removed_at_half(net(look))
    assert len(graph.groups) == 1


READINGS = {
    "numel": lambda m, y: m.out(y) / y.numel(),
    "stride": lambda m, y: m.out(y) / y.stride(0),
    "length": lambda m, y: m.out(y) / len(m.a.weight),
    "numpy": lambda m, y: m.out(y) * y.detach().numpy().shape[1],
    "list": lambda m, y: m.out(y) * len(y.tolist()[0]),
    "compiled": lambda m, y: m.out(scaled(y)),
    "bytes": lambda m, y: m.out(y) * y.nbytes,
}


@pytest.mark.parametrize("name", READINGS)
def test_what_is_read_past_the_label_rules_stays(name):
    removed_at_half(Net(lambda m, x: READINGS[name](m, m.a(x)), a=conv(3, 16, 3), out=conv(16, 2)))


def test_data_is_the_tensor_itself_and_compiled_activations_pass():
    model = Net(lambda m, x: m.out(swish(m.a(x).data)), a=conv(3, 16, 3), out=conv(16, 2))
    graph, small = removed_at_half(model)
    assert [g.name for g in graph.groups] == ["a"] and small.out.in_channels == 8


def test_a_model_that_keeps_a_compiled_function_is_copied():
    model = Net(lambda m, x: m.out(m.act(m.a(x))), a=conv(3, 16, 3), out=conv(16, 2))
    model.act = swish
    assert len(removed_at_half(model)[0].groups) == 1


def test_caches_give_no_trace_the_numbers_of_another():
    def forward(m, x):
        y = m.a(x)
        return m.out(y[:, : half(y.shape[1])] + y[:, half(y.shape[1]) :])

    model = Net(forward, a=conv(3, 16, 3), out=conv(8, 2))
    removed = [sum(g.channels for g in removed_at_half(model)[0].groups) for _ in range(2)]
    half(16), model(IMAGE)
    assert removed == [8, 8] and sum(g.channels for g in removed_at_half(model)[0].groups) == 8


def test_half_of_an_attribute():
    def forward(m, x):
        one, other = m.a(x).split(m.expand // 2, dim=1)
        return m.out(torch.cat([one, m.b(other)], 1))

    model = Net(forward, a=conv(3, 16), b=conv(8, 8, 3), out=conv(16, 2))
    model.expand = 16
    _, small = removed_at_half(model)
    assert small.expand == 8 and small.b.in_channels == 4


def test_a_compiled_module_is_refused_by_name():
    model = nn.Sequential(conv(3, 8), torch.jit.script(nn.ReLU()))
    with pytest.raises(dcodp.InputError, match="its module 1 is compiled"):
        dcodp.trace(model, (IMAGE.float(),))
