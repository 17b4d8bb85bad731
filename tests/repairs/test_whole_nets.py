"""Whole architectures half of whose channels are copies of the others: a repair brings their outputs back."""

import numpy as np
import pytest
import torch
import zoo
from zoo.proof import last_layers

import dcodp
from dcodp.pruning import make_plan
from dcodp.testing import enliven, relative_error, run

# More images than any layer reads channels: at 64 px the deepest maps of YOLOs, pooled over their whole size, are one
# sample an image.
NETS = {"yolov5n": 512}
FURTHER = {
    "resnet18": 640,
    "mobilenet_v3_small": 2560,
    "shufflenet_v2_x1_0": 2560,
    "yolov8n": 512,
    "yolov10n": 512,
    "yolo11n": 512,
}


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@torch.no_grad()
def made_of_copies(model, graph):
    """The plan that removes the later half of every group, whose channels become copies of the earlier ones."""
    tensors, keep = model.state_dict(), {}
    for group in graph.groups:
        half = -(-group.channels // 2)
        keep[group.name] = range(half)
        gone = np.arange(half, group.channels)
        for site in group.sites:
            if site.role != "in":
                own, others = (torch.as_tensor(site.index[which].ravel()) for which in (gone, gone - half))
                tensor = tensors[site.tensor]
                tensor.index_copy_(site.dim, own, tensor.index_select(site.dim, others))
    return make_plan(graph, keep)


def repaired(name, images):
    """Relative errors of the outputs and of the last layers: sliced, and repaired."""
    torch.manual_seed(0)
    architecture = zoo.ARCHITECTURES[name]
    inputs = architecture.inputs(64)
    dense = enliven(architecture.build().double().eval(), inputs)
    graph = dcodp.trace(dense, inputs, outputs=architecture.outputs)
    plan = made_of_copies(dense, graph)
    batches = [tuple(torch.rand(64, *part.shape[1:]) for part in inputs) for _ in range(images // 64)]
    small = dcodp.prune(dense, plan)
    better = dcodp.repair(dense, small, plan, batches, graph=graph)
    heads = sorted({*architecture.heads, *(layer for layer in last_layers(graph) if not graph.group_of(layer))})
    wanted, *found = (run(net, inputs, architecture.compared, heads) for net in (dense, small, better))
    return [max(relative_error(a, b) for a, b in zip(wanted, one, strict=True)) for one in found]


@pytest.mark.parametrize(("name", "images"), NETS.items())
def test_copies_in_all_layers_are_made_up_for(name, images):
    before, after = repaired(name, images)
    assert before > 0.1 and after <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), FURTHER.items())
def test_copies_in_further_nets_are_made_up_for(name, images):
    """Each refitted layer adds to the rounding of those before it."""
    before, after = repaired(name, images)
    assert before > 0.1 and after <= 1e-7


def test_a_trace_without_the_groups_of_the_plan_is_refused():
    """All outputs of a YOLO hold the maps that its head reads, which then cannot be pruned: a repair that traced the
    net so would leave what reads them as it was."""
    architecture = zoo.ARCHITECTURES["yolov5n"]
    inputs = architecture.inputs(64)
    dense = architecture.build().double().eval()
    graph = dcodp.trace(dense, inputs, outputs=architecture.outputs)
    plan = dcodp.select(graph, {group.name: torch.rand(group.channels) for group in graph.groups}, ratio=0.5)
    with pytest.raises(dcodp.InputError, match=r"3 groups that the trace does not have so, as .*; give graph="):
        dcodp.repair(dense, dcodp.prune(dense, plan), plan, [inputs])
