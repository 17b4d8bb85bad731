"""Which channels are coupled, on small nets whose answer is known."""

import threading

import pytest
import torch
from small_nets import IMAGE, Net, conv, layers_of_groups, removed_at_half
from torch import nn

import dcodp
from dcodp.testing import assert_equivalent


def test_a_chain_has_one_group_per_inner_layer():
    graph, small = removed_at_half(nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 4)))
    assert layers_of_groups(graph) == [{"0"}, {"2"}]
    assert [g.channels for g in graph.groups] == [8, 6]
    assert [f.layer for f in graph.frozen] == ["4"] and "output" in graph.frozen[0].reason
    assert small[2].weight.shape == (3, 4, 1, 1) and small[2].in_channels == 4


def test_a_residual_add_couples_both_branches():
    model = Net(lambda m, x: m.out((y := m.a(x)) + m.b(y)), a=conv(3, 8), b=conv(8, 8, 3), out=conv(8, 4))
    graph, _ = removed_at_half(model)
    assert layers_of_groups(graph) == [{"a", "b"}]
    assert graph.groups[0].coupled and graph.parents["out"] == ["a", "b"]


def test_concatenation_keeps_groups_apart():
    model = Net(lambda m, x: m.out(torch.cat([m.a(x), m.b(x)], 1)), a=conv(3, 4), b=conv(3, 6), out=conv(10, 4))
    graph, small = removed_at_half(model)
    assert layers_of_groups(graph) == [{"a"}, {"b"}]
    assert small.out.in_channels == 5


def test_chunks_lose_the_same_positions():
    model = Net(lambda m, x: m.out(m.a(x).chunk(2, 1)[0] * m.a(x).chunk(2, 1)[1]), a=conv(3, 8), out=conv(4, 2))
    graph, _ = removed_at_half(model)
    assert [g.channels for g in graph.groups] == [4]


def test_split_by_an_attribute_updates_it():
    def forward(m, x):
        one, other = m.a(x).split((m.width, m.width), dim=1)
        return m.out(torch.cat([one, m.b(other)], 1))

    model = Net(forward, a=conv(3, 8), b=conv(4, 4), out=conv(8, 2))
    model.width = 4
    _, small = removed_at_half(model)
    assert small.width == 2 and model.width == 4


def test_split_by_literals_is_frozen_with_a_reason():
    model = Net(lambda m, x: m.out(m.a(x).split((3, 5), dim=1)[1]), a=conv(3, 8), out=conv(5, 2))
    graph, _ = removed_at_half(model)
    assert graph.groups == [] and any("size" in f.reason for f in graph.frozen)


def test_depthwise_and_grouped_convolutions_shrink_their_groups():
    model = nn.Sequential(conv(3, 8), conv(8, 8, 3, groups=8), conv(8, 12, groups=4), conv(12, 4))
    _, small = removed_at_half(model)
    assert small[1].groups == small[1].in_channels == small[1].out_channels
    assert small[2].groups < 4 and small[2].weight.shape[1] == 2


def test_transposed_convolution():
    up = nn.ConvTranspose2d(8, 6, 2, 2)
    _, small = removed_at_half(nn.Sequential(conv(3, 8), up, nn.BatchNorm2d(6), nn.ReLU(), conv(6, 2)))
    assert small[1].weight.shape == (4, 3, 2, 2) and small[2].num_features == 3


def test_flattening_into_a_linear_layer():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10), nn.ReLU(), nn.Linear(10, 2))
    _, small = removed_at_half(model)
    assert small[3].in_features == 4 * 64 and small[3].out_features == 5


def test_squeeze_and_excite():
    def forward(m, x):
        y = m.a(x)
        return m.out(y * m.up(m.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid())

    removed_at_half(Net(forward, a=conv(3, 8), down=conv(8, 4), up=conv(4, 8), out=conv(8, 2)))


def test_a_layer_shared_across_scales_is_one_group():
    def forward(m, x):
        y = m.a(x)
        return m.out(m.shared(y)), m.out(m.shared(nn.functional.max_pool2d(y, 2)))

    graph, _ = removed_at_half(Net(forward, a=conv(3, 8), shared=conv(8, 6, 3), out=conv(6, 2)))
    assert layers_of_groups(graph) == [{"a"}, {"shared"}]


def test_group_norm_loses_whole_groups():
    _, small = removed_at_half(nn.Sequential(conv(3, 12), nn.GroupNorm(4, 12), nn.ReLU(), conv(12, 2)))
    assert small[1].num_groups == 2 and small[1].num_channels == 6


def test_attention_heads_shrink_with_their_attributes():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp, self.qkv, self.proj = nn.Linear(3, 12), nn.Linear(12, 3 * 12), nn.Linear(12, 4)
            self.heads, self.dim = 2, 6

        def forward(self, x):
            x = self.inp(x.flatten(2).transpose(1, 2))
            b, n, _ = x.shape
            q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
            y = (q @ k.transpose(-2, -1) * 0.3).softmax(-1) @ v
            return self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.dim))

    _, small = removed_at_half(Attention())
    assert small.dim == 3 and small.heads == 2 and small.qkv.out_features == 18


def test_implicit_parameters_go_with_their_channels():
    model = Net(lambda m, x: m.out(m.a(x + 0) * m.im + m.ia), a=conv(3, 8), out=conv(8, 2))
    model.ia, model.im = nn.Parameter(torch.rand(1, 8, 1, 1)), nn.Parameter(torch.rand(1, 8, 1, 1))
    _, small = removed_at_half(model)
    assert small.ia.shape == (1, 4, 1, 1)


def test_channel_shuffle_by_view_and_transpose():
    def shuffle(m, x):
        y = m.a(x)
        b, c, h, w = y.shape
        return m.out(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))

    graph, _ = removed_at_half(Net(shuffle, a=conv(3, 8), out=conv(8, 2)))
    assert [g.channels for g in graph.groups] == [4]


def test_other_inputs_outputs_and_precision():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = conv(3, 8), conv(3, 8), conv(8, 2)

        def forward(self, images, scale=None):
            y = self.a(images["left"]) + self.b(images["right"])
            return {"scores": [self.out(y * scale)]}

    model = TwoInputs().half()
    inputs = {"images": {"left": torch.rand(1, 3, 4, 4).half(), "right": torch.rand(1, 3, 4, 4).half()}, "scale": 2.0}
    graph = dcodp.trace(model, inputs)
    assert layers_of_groups(graph) == [{"a", "b"}]
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups})
    small = dcodp.prune(model, plan)
    assert small.a.weight.dtype == torch.float16
    assert_equivalent(model, small, plan, inputs)


def test_outputs_that_do_not_matter_may_shrink():
    model = Net(lambda m, x: (m.out(y := m.a(x)), y), a=conv(3, 8), out=conv(8, 2)).eval()
    assert dcodp.trace(model, (IMAGE.float(),)).groups == []
    assert len(dcodp.trace(model, (IMAGE.float(),), outputs=lambda r: r[0]).groups) == 1


def test_the_model_is_left_untouched():
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    dcodp.trace(model, (IMAGE.float(),))
    assert model.training and all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert not hasattr(model[0].weight, "_dcodp_axes")


def test_a_model_that_does_not_run_says_so():
    with pytest.raises(dcodp.InputError, match="does not run on the example inputs"):
        dcodp.trace(conv(3, 4), (torch.rand(1, 5, 8, 8),))


class Answer:
    def __init__(self, scores):
        self.scores = scores


def test_results_in_any_object_stay():
    model = Net(lambda m, x: Answer({"all": [m.out(m.a(x))]}), a=conv(3, 8), out=conv(8, 2))
    graph, _ = removed_at_half(model)
    assert layers_of_groups(graph) == [{"a"}]
    with pytest.raises(dcodp.InputError, match="no tensors were found"):
        dcodp.trace(model.float(), (IMAGE.float(),), outputs=lambda r: None)


@pytest.mark.parametrize("model", [torch.jit.script(conv(3, 8)), print])
def test_what_is_no_python_module_is_refused(model):
    with pytest.raises(dcodp.InputError, match=r"cannot be traced; give the torch.nn.Module"):
        dcodp.trace(model, (IMAGE.float(),))


def test_a_model_that_cannot_be_copied_says_so():
    model = conv(3, 8)
    model.lock = threading.Lock()
    with pytest.raises(dcodp.InputError, match="cannot be copied"):
        dcodp.trace(model, (IMAGE.float(),))


def test_results_that_a_module_keeps_are_copied_without_their_history():
    model = nn.Sequential(conv(3, 8), conv(8, 2))
    model.kept = model(IMAGE.float())
    assert len(dcodp.trace(model, (IMAGE.float(),)).groups) == 1


def test_explain_names_groups_parents_and_reasons():
    model = Net(lambda m, x: m.out((y := m.a(x)) + m.b(y)), a=conv(3, 8), b=conv(8, 8, 3), out=conv(8, 4))
    text = dcodp.trace(model, (IMAGE.float(),)).explain()
    assert "1 groups, 8 removable channels" in text and "a, b" in text and "an output of the model" in text


def test_parameters_that_are_not_read_stay():
    model = Net(lambda m, x: m.out(m.a(x)), a=conv(3, 8), unused=conv(8, 8), out=conv(8, 2))
    graph, small = removed_at_half(model)
    assert [g.name for g in graph.groups] == ["a"] and small.unused.weight.shape == (8, 8, 1, 1)
