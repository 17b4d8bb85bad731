"""A pruned model trains too: what only the training forward reads is traced as well."""

import torch
from small_nets import IMAGE, Net, conv, layers_of_groups, removed_at_half
from torch import nn

import dcodp


def with_auxiliary_head(m, x):
    y = m.a(x)
    return (m.out(y), m.auxiliary(m.b(y))) if m.training else m.out(y)


def auxiliary_net():
    return Net(with_auxiliary_head, a=conv(3, 8), b=conv(8, 6), auxiliary=conv(6, 5), out=conv(8, 2))


def test_heads_that_only_run_in_training_follow_and_keep_their_outputs():
    graph, small = removed_at_half(auxiliary_net())
    assert layers_of_groups(graph) == [{"a"}, {"b"}]
    main, auxiliary = small.train()(IMAGE)
    assert auxiliary.shape == (2, 5, 8, 8) and small.auxiliary.in_channels == 3
    (main.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in small.parameters())


def test_features_passed_along_in_training_may_shrink():
    def forward(m, x):
        y = m.a(x)
        return {"scores": m.out(y), "features": y} if m.training else (m.out(y), y)

    graph, small = removed_at_half(Net(forward, a=conv(3, 8), out=conv(8, 2)), outputs=lambda r: r[0])
    assert layers_of_groups(graph) == [{"a"}]
    assert small.train()(IMAGE)["features"].shape[1] == 4


def test_sizes_that_only_training_asks_for_are_followed():
    def forward(m, x):
        y = m.a(x)
        return m.out(y.view(len(y), m.width, 64).view_as(y)) if m.training else m.out(y)

    model = Net(forward, a=conv(3, 8), out=conv(8, 2))
    model.width = 8
    _, small = removed_at_half(model)
    assert small.width == 4 and small.train()(IMAGE).shape == (2, 2, 8, 8)


def test_a_training_pass_that_needs_targets_is_left_out_with_a_note():
    def forward(m, x):
        if m.training:
            raise ValueError("targets must be given")
        return m.out(m.a(x))

    model = Net(forward, a=conv(3, 8), unused=conv(8, 8), out=conv(8, 2)).eval()
    graph = dcodp.trace(model, (IMAGE.float(),))
    assert layers_of_groups(graph) == [{"a"}]
    assert "targets must be given" in graph.notes[0] and "targets must be given" in graph.frozen[-1].reason
    assert graph.notes[0] in graph.explain()


def test_tracing_leaves_random_numbers_and_statistics_alone():
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.Dropout(0.5), conv(8, 2))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    dcodp.trace(model, (torch.rand(1, 3, 1, 1, generator=torch.Generator()),))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
