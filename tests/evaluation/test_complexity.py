"""Parameters, FLOPs and latency: counted by hand on small nets, published for YOLOv8n."""

import pytest
import torch
from torch import nn

from dcodp.evaluation import count_flops, count_parameters, latency_ms
from dcodp.evaluation.complexity import as_found


class Caching(nn.Module):
    """Keeps something from its last eval-mode call, as detection heads do with their anchors."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.shape = None
        self.calls = []
        self.register_buffer("grid", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.calls = [*self.calls, self.training]
        self.shape, self.grid, self.late = x.shape, x.mean(), 1
        return self.norm(self.conv(x))


def test_two_operations_per_multiply_accumulate():
    assert count_flops(nn.Conv2d(3, 8, 3, padding=1), (torch.zeros(1, 3, 10, 10),)) == 2 * 10 * 10 * 8 * 3 * 9
    assert count_flops(nn.Linear(5, 7), (torch.zeros(4, 5),)) == 2 * 4 * 5 * 7


def test_shared_and_frozen_parameters():
    shared = nn.Linear(3, 3)
    shared.bias.requires_grad_(False)
    assert count_parameters(nn.Sequential(shared, nn.BatchNorm1d(3), shared)) == 3 * 3 + 3 + 2 * 3


@pytest.mark.parametrize("measure", [count_flops, lambda m, x: latency_ms(m, x, runs=2, warmup=1)])
def test_the_module_is_left_as_it_was(measure):
    module = Caching()
    module.norm.eval()
    before, running = dict(vars(module)), module.norm.running_mean.clone()
    measure(module, (torch.rand(1, 3, 8, 8),))
    assert vars(module) == before
    assert module.training and not module.norm.training and module.shape is None
    assert torch.equal(module.grid, torch.zeros(1))
    assert torch.equal(module.norm.running_mean, running)


def test_the_module_is_put_back_after_an_error():
    module = Caching()
    with pytest.raises(RuntimeError), as_found(module):
        module.eval()(torch.rand(1, 4, 8, 8))
    assert module.training and module.shape is None


def test_latency_counts_runs_in_eval_mode():
    module, seen = Caching(), []
    module.register_forward_hook(lambda m, *_: seen.append(m.training))
    result = latency_ms(module, (torch.rand(1, 3, 64, 64),), runs=7, warmup=2)
    assert seen == [False] * 9
    assert 0 < result.p10 <= result.median_ms <= result.p90
    assert (result.runs, result.device, result.threads) == (7, "cpu", torch.get_num_threads())


def test_yolov8n_as_published():
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    model = tasks.DetectionModel("yolov8n.yaml", verbose=False)
    assert count_parameters(model) == 3_157_200
    assert count_flops(model, (torch.zeros(1, 3, 640, 640),)) == pytest.approx(8.74e9, rel=0.01)
    assert model.training
