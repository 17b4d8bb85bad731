"""Mixed precision: losses and lessons of every family come out nearly as with all digits, and weights keep theirs."""

from typing import Any

import pytest
import torch
from test_training_detectors import CLASSES, FAMILIES, SIZE, pruned

from dcodp.data.types import Batch
from dcodp.training.distillation import distillation
from dcodp.training.objective import Objective, Whole
from dcodp.training.processes import make_fabric


def batch():
    torch.manual_seed(1)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.4, 0.6, 0.3, 0.5]])
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    return Batch(images, boxes, torch.tensor([0, len(CLASSES) - 1]), torch.tensor([0, 1]))


def told(network, given, outputs):
    """A term that says what the loss is given of the boxes."""
    return given.boxes.sum()


def losses(detector, term, amp_on_cpu):
    """The parts, and the gradient of the whole, of the same weights and the same draws."""
    torch.manual_seed(2)
    given, network = batch(), detector.network.train()
    network.zero_grad()
    fabric = make_fabric([torch.device("cpu")], amp=True, amp_on_cpu=amp_on_cpu)
    module: Any = fabric.setup(Objective(detector, {"distill": term, "told": told}))
    loss, parts = module(Whole(given))
    fabric.backward(loss)
    return parts, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize(("family", "variant"), FAMILIES)
def test_losses_and_lessons_in_half_precision(family, variant):
    dense, small, plan = pruned(family, variant)
    term = distillation(dense, small.network, dense.coupling_graph(SIZE), plan, 1.0)
    whole, steep = losses(small, term, amp_on_cpu=False)
    half, steep_half = losses(small, term, amp_on_cpu=True)
    assert half["told"] == whole["told"] == batch().boxes.sum()  # boxes keep their digits
    assert whole.keys() == half.keys() and not torch.equal(steep, steep_half)
    for name in whole:
        assert half[name].dtype == torch.float32
        assert half[name] == pytest.approx(float(whole[name]), rel=0.1, abs=0.02), name
    assert steep_half.dtype == torch.float32 and steep_half.isfinite().all()


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_bfloat16_says_so(has, monkeypatch, caplog):
    monkeypatch.setattr("dcodp.training.processes.multiplies_bfloat16", lambda: has)
    make_fabric([torch.device("cpu")], amp=True, amp_on_cpu=True)
    assert ("far slower; leave it out" in caplog.text) is not has
