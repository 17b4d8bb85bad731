"""Random nets: whatever is pruned, the oracle holds."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_nets import OPERATIONS, SIDE, RandomNet

import dcodp
from dcodp.testing import assert_equivalent, enliven

step = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 7), st.integers(0, 7))
nets = given(st.lists(step, min_size=1, max_size=8), st.sampled_from([8, 12]), st.integers(0, 2**16))


def check(steps, width, seed):
    torch.manual_seed(seed)
    x = (torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64),)
    model = RandomNet(steps, width).double().eval()
    with torch.no_grad():
        model(*x)
    enliven(model, x, seed)
    graph = dcodp.trace(model, x)
    assert all(frozen.reason for frozen in graph.frozen)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.4)
    small = dcodp.prune(model, plan)
    assert_equivalent(model, small, plan, x)
    small.train()(*x)


@settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@nets
def test_pruned_equals_zeroed(steps, width, seed):
    check(steps, width, seed)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@nets
def test_pruned_equals_zeroed_in_three_thousand_others(steps, width, seed):
    check(steps, width, seed)
