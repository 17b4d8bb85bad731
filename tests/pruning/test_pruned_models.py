"""A pruned net is an ordinary net: it copies, pickles, trains, exports, fuses, and its modules tell the truth."""

import copy
import io
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

import dcodp
from dcodp import _ultralytics
from dcodp.testing import enliven


@dataclass
class Case:
    dense: Any
    small: Any
    x: torch.Tensor

    def __call__(self, model):
        result = model(self.x)
        return result[0] if isinstance(result, tuple) else result


def yolov8n():
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolov8n.yaml", nc=3, verbose=False)


@pytest.fixture(scope="module", params=[yolov8n, models.mobilenet_v3_small], ids=["yolov8n", "mobilenet"])
def case(request):
    torch.manual_seed(0)
    dense, x = request.param().eval(), torch.rand(1, 3, 64, 64)
    enliven(dense, (x,))
    graph = dcodp.trace(dense, (x,), outputs=lambda r: r[0] if isinstance(r, tuple) else r)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    return Case(dense, dcodp.prune(dense, plan), x)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_compute_the_same(case, way):
    assert torch.equal(case(way(case.small)), case(case.small))


def test_state_dict_names_and_mode_are_those_of_the_dense_net(case):
    assert list(case.small.state_dict()) == list(case.dense.state_dict())
    assert not case.small.training and not any(m.training for m in case.small.modules())


def test_attributes_say_what_the_tensors_are(case):
    for module in case.small.modules():
        if isinstance(module, nn.Conv2d):
            width = module.out_channels, module.in_channels // module.groups, *module.kernel_size
            assert module.weight.shape == width and f"Conv2d({module.in_channels}, {module.out_channels}" in repr(
                module
            )
        elif isinstance(module, nn.BatchNorm2d):
            assert module.num_features == len(module.weight) == len(module.running_mean)
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif hasattr(module, "c") and hasattr(module, "cv2"):  # C2f
            assert module.c == module.cv1.conv.out_channels // 2


def test_it_trains(case):
    small = copy.deepcopy(case.small).train()
    before = copy.deepcopy(small.state_dict())
    optimiser = torch.optim.SGD(small.parameters(), lr=0.01)
    with torch.enable_grad():
        result = small(torch.rand(2, 3, 64, 64))
        leaves = torch.utils._pytree.tree_leaves(result)
        sum(t.square().mean() for t in leaves if isinstance(t, torch.Tensor)).backward()
    optimiser.step()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad)
    assert any(not torch.equal(v, before[k]) for k, v in small.state_dict().items())


@pytest.mark.parametrize("size", [(1, 3, 96, 128), (3, 3, 64, 64)])
def test_other_sizes_and_batches(case, size):
    small, dense = copy.deepcopy(case.small), copy.deepcopy(case.dense)
    x = torch.rand(*size)
    found, wanted = small(x), dense(x)
    shapes = [r[0].shape if isinstance(r, tuple) else r.shape for r in (found, wanted)]
    assert shapes[0] == shapes[1]


def test_torch_export(case):
    assert torch.allclose(case(torch.export.export(case.small, (case.x,), strict=False).module()), case(case.small))


def single_result(model):
    """YOLO's head returns its predictions alone when told that it is exported, as ultralytics does itself."""
    model = copy.deepcopy(model)
    if hasattr(model, "model"):
        model.model[-1].export = True
    return model


def test_torch_script_trace(case):
    small = single_result(case.small)
    assert torch.allclose(torch.jit.trace(small, case.x, check_trace=False)(case.x), case(case.small), atol=1e-4)


def test_onnx(case):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    written = io.BytesIO()
    torch.onnx.export(single_result(case.small), (case.x,), written, dynamo=False, input_names=["images"])
    (found,) = runtime.InferenceSession(written.getvalue()).run(None, {"images": case.x.numpy()})
    wanted = case(case.small)
    assert (torch.from_numpy(found) - wanted).abs().max() <= 1e-3 * wanted.abs().max()


def test_it_fuses_where_the_dense_net_does(case):
    if not hasattr(case.dense, "fuse"):
        pytest.skip("this net has nothing to fuse")
    fused, wanted = copy.deepcopy(case.small).fuse(verbose=False), case(case.small)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert (case(fused) - wanted).abs().max() <= 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("name", ["yolov10n", pytest.param("yolo26n", marks=pytest.mark.slow)])
def test_both_heads_of_end_to_end_detectors_train(name):
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    dense, x = DetectionModel(f"{name}.yaml", nc=3, verbose=False).eval(), torch.rand(2, 3, 64, 64)
    graph = dcodp.trace(dense, (x,), outputs=lambda r: r[0])
    small = dcodp.prune(dense, dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5))
    with torch.enable_grad():
        found, wanted = small.train()(x), dense.train()(x)
        for head in ("one2many", "one2one"):
            for part in ("boxes", "scores"):
                assert found[head][part].shape == wanted[head][part].shape
        sum(found[h][p].mean() for h in ("one2many", "one2one") for p in ("boxes", "scores")).backward()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad)
