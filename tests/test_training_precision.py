"""Mixed precision: every family's losses and lessons come out as with all digits, nearly, and the weights keep theirs."""

import pytest
import torch
from test_training_detectors import CLASSES, FAMILIES, SIZE, pruned

from dcodp.data.types import Batch
from dcodp.training.distillation import distillation
from dcodp.training.objective import Objective
from dcodp.training.processes import make_fabric


def batch():
    torch.manual_seed(1)
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.4, 0.6, 0.3, 0.5]])
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    return Batch(images, boxes, torch.tensor([0, len(CLASSES) - 1]), torch.tensor([0, 1]))


def losses(detector, term, amp_on_cpu):
    """The parts, and the gradient of the whole, of the same weights and the same draws."""
    torch.manual_seed(2)
    given, network = batch(), detector.network.train()
    network.zero_grad()
    with make_fabric([torch.device("cpu")], amp=True, amp_on_cpu=amp_on_cpu).autocast():
        loss, parts = Objective(detector, {"distill": term})(given.images, given.boxes, given.labels, given.image_index)
    loss.backward()
    return parts, torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize(("family", "variant"), FAMILIES)
def test_losses_and_lessons_in_half_precision(family, variant):
    dense, small, plan = pruned(family, variant)
    term = distillation(dense, small.network, dense.coupling_graph(SIZE), plan, 1.0)
    whole, steep = losses(small, term, amp_on_cpu=False)
    half, steep_half = losses(small, term, amp_on_cpu=True)
    assert whole.keys() == half.keys() and not torch.equal(steep, steep_half)
    for name in whole:
        assert half[name].dtype == torch.float32
        assert half[name] == pytest.approx(float(whole[name]), rel=0.1, abs=0.02), name
    assert steep_half.dtype == torch.float32 and steep_half.isfinite().all()
