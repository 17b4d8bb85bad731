"""The architecture of YOLOv7 in numbers, its decoding, fusing, weights and what the pipeline asks of it."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.class_rows import COCO_CLASSES
from dcodp.detectors.families.yolov7 import YOLOv7Detector, build, fuse, yolov7
from dcodp.detectors.families.yolov7.blocks import ConvBlock, RepConv
from dcodp.detectors.families.yolov7.head import decode
from dcodp.errors import InputError

CLASSES = ("circle", "square", "star")
TINY = ModelConfig(name="yolov7_tiny_test", family="yolov7", variant="tiny_test")


@pytest.fixture(scope="module")
def dense():
    """The full network without memory for its weights."""
    with torch.device("meta"):
        return yolov7(80)


@pytest.fixture
def network():
    return yolov7(len(CLASSES), width=0.25)


def shaken(network: nn.Module) -> nn.Module:
    """Double precision with random statistics, scales, shifts and implicit vectors, all of order one."""
    for module in network.double().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    for name, parameter in network.named_parameters():
        if name.endswith("implicit"):
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return network.eval()


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_published_number_of_parameters(dense):
    assert parameters(dense) == 37_622_682
    assert parameters(fuse(dense)) == 36_905_341


def test_published_flops(dense):
    with FlopCounterMode(display=False) as counter:
        fuse(dense)(torch.zeros(1, 3, 640, 640, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(104.511, abs=1e-3)


def test_official_numbering(dense):
    shapes = {name: tuple(tensor.shape) for name, tensor in dense.state_dict().items()}
    assert len(dense.model) == 106
    assert shapes["model.0.conv.weight"] == (32, 3, 3, 3)
    assert shapes["model.51.cv7.bn.running_var"] == (512,)
    assert shapes["model.104.rbr_dense.0.weight"] == (1024, 512, 3, 3)
    assert shapes["model.104.rbr_1x1.1.weight"] == (1024,)
    assert shapes["model.105.ia.2.implicit"] == (1, 1024, 1, 1)
    assert shapes["model.105.im.0.implicit"] == (1, 255, 1, 1)
    assert dense.sources[10] == (9, 7, 5, 4)
    assert dense.sources[80] == (79, 77, 63)
    assert dense.sources[93] == (92, 90, 51)
    assert dense.sources[105] == (102, 103, 104)
    norms = [m for m in dense.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.eps == 1e-3 and norm.momentum == 0.03 for norm in norms)


def test_width_keeps_the_topology(dense, network):
    assert network.sources == dense.sources
    assert [type(a) for a in network.model] == [type(b) for b in dense.model]
    assert parameters(network) < parameters(dense) / 12


def test_results_in_training_and_evaluation(network):
    image = torch.rand(2, 3, 64, 96)
    raw = network.train()(image)
    assert [tuple(r.shape) for r in raw] == [(2, 3, 8, 12, 8), (2, 3, 4, 6, 8), (2, 3, 2, 3, 8)]
    predictions, raw = network.eval()(image)
    assert predictions.shape == (2, 3 * (96 + 24 + 6), 8)
    # rows run over levels, then anchors, then y, then x
    row = 3 * 96 + (2 * 4 + 1) * 6 + 5
    probability = raw[1][1, 2, 1, 5, 4:].sigmoid()
    torch.testing.assert_close(predictions[1, row, 4:], probability)


def test_decoding_by_hand():
    raw = torch.zeros(1, 2, 3, 4, 7)
    raw[0, 1, 2, 3, 2:4] = torch.tensor([100.0, -100.0])
    anchors = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    boxes = decode(raw, anchors, 8)
    # logits of 0 mean the middle of the cell and the anchor's own sides
    torch.testing.assert_close(boxes[0, 0, 1, 2], torch.tensor([20.0, 12.0, 8.0, 16.0, 0.5, 0.5, 0.5]))
    torch.testing.assert_close(boxes[0, 1, 2, 3, :4], torch.tensor([28.0, 20.0, 4 * 24.0, 0.0]))


def test_prior_of_a_fresh_head():
    head = yolov7(20, width=0.125).head
    bias = torch.stack([m.bias.detach().view(3, 25) for m in head.m])
    objects = sum(3 * (640 // s) ** 2 * bias[i, :, 4].sigmoid().mean() for i, s in enumerate((8, 16, 32)))
    assert float(objects) == pytest.approx(3 * 3 * 8, rel=0.25)  # 8 per anchor and level
    assert float(bias[..., 5:].sigmoid().mean()) == pytest.approx(0.6 / (20 - 0.99 + 0.6), rel=0.1)


def test_fusing_keeps_the_function(network):
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = shaken(network)(image)
        fused = fuse(network)
        found, _ = fused(image)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())  # the original is untouched
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert expected.std(1).amax() > 1e-3


@pytest.mark.parametrize("outputs", [8, 12], ids=["with identity", "without identity"])
def test_fusing_repconv(outputs):
    block = shaken(RepConv(8, outputs))
    assert (block.rbr_identity is not None) == (outputs == 8)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    expected = block(x)
    block.fuse()
    assert parameters(block) == outputs * 8 * 9 + outputs
    torch.testing.assert_close(block(x), expected)
    block.fuse()  # a second time changes nothing
    torch.testing.assert_close(block(x), expected)


def test_fusing_a_convolution_keeps_its_mode():
    block = shaken(ConvBlock(3, 4, 3, 2)).train()
    block.fuse()
    assert block.conv.training and block.conv.bias is not None


# --- weights ---------------------------------------------------------------------------------------------------------


def saved(tmp_path, state) -> ModelConfig:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "weights.safetensors")
    return ModelConfig(**{**vars(TINY), "weights": str(tmp_path / "weights.safetensors")})


def test_weights_of_the_same_network(network, tmp_path):
    state = shaken(network).float().state_dict()
    state["model.105.anchor_grid"] = torch.ones(3, 1, 3, 1, 1, 2)  # the official files have it
    detector, notes = build(saved(tmp_path, state), CLASSES)
    assert notes == []
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(detector.network.eval()(image)[0], network(image)[0])


def test_plain_convolutions_instead_of_repconv(network, tmp_path):
    state = shaken(network).float().state_dict()
    for name in [name for name in state if "rbr_" in name]:
        tensor = state.pop(name)
        if "rbr_dense" in name:
            state[name.replace("rbr_dense.0", "conv").replace("rbr_dense.1", "bn")] = tensor
    detector, notes = build(saved(tmp_path, state), CLASSES)
    assert len(notes) == 1 and "1×1" in notes[0]
    x = torch.randn(2, network.model[102].rbr_dense[0].in_channels, 6, 6)
    plain = network.model[102].rbr_dense
    for mode in (True, False):  # also with batch statistics
        block = detector.network.model[102].train(mode)
        torch.testing.assert_close(block(x), nn.functional.silu(plain.train(mode)(x)))


def test_weights_whose_implicit_vectors_are_folded(network, tmp_path):
    state = shaken(network).float().state_dict()
    folded = {name: tensor for name, tensor in state.items() if "implicit" not in name}
    detector, notes = build(saved(tmp_path, folded), CLASSES)
    assert len(notes) == 1 and "implicit" in notes[0]
    x = torch.rand(1, network.head.m[0].in_channels, 4, 4)
    raw = detector.network.head.eval()._level(0, x)
    torch.testing.assert_close(raw.permute(0, 1, 4, 2, 3).flatten(1, 2), network.head.m[0](x))


def test_weights_for_other_classes(network, tmp_path):
    """Of the head, what is said of boxes and objectness is kept for every anchor."""
    state = shaken(network).float().state_dict()
    detector, notes = build(saved(tmp_path, state), ("a", "b"))
    assert len(notes) == 1 and "weights of 3 classes in a detector of 2: no class is known by name" in notes[0]
    own = detector.network.state_dict()
    assert torch.equal(own["model.104.rbr_dense.0.weight"], state["model.104.rbr_dense.0.weight"])
    assert torch.equal(own["model.105.ia.1.implicit"], state["model.105.ia.1.implicit"])
    for name, dimension in (("m.0.weight", 0), ("m.2.bias", 0), ("im.1.implicit", 1)):
        mine, theirs = (s[f"model.105.{name}"].unflatten(dimension, (3, -1)) for s in (own, state))
        assert torch.equal(mine.narrow(dimension + 1, 0, 5), theirs.narrow(dimension + 1, 0, 5))
    assert own["model.105.m.0.bias"].view(3, 7)[:, 5:].max() < 1  # the prior of a fresh head


def test_rows_of_known_classes_are_copied_for_every_anchor(network, tmp_path):
    state = shaken(yolov7(80, width=0.25)).float().state_dict()  # without names: COCO's
    detector, (note,) = build(saved(tmp_path, state), ("sofa", "person", "wombat"))
    assert note.endswith("the class rows of 2 were copied by name, those of wombat start afresh")
    assert detector.fresh == pytest.approx(1 / 3)
    mine, theirs = (s["model.105.m.1.weight"].unflatten(0, (3, -1)) for s in (detector.network.state_dict(), state))
    assert torch.equal(mine[:, 5:7], theirs[:, [5 + COCO_CLASSES.index("couch"), 5]])


@pytest.mark.parametrize("change", ["another width", "missing", "unknown"])
def test_weights_of_another_architecture(network, tmp_path, change):
    state = yolov7(3, width=0.125).state_dict() if change == "another width" else network.state_dict()
    if change == "missing":
        del state["model.7.bn.running_mean"]
    if change == "unknown":
        state["model.121.conv.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"weights.safetensors is of another architecture: model\.\d+\.") as error:
        build(saved(tmp_path, state), CLASSES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "classes", "named"),
    [({"variant": "x"}, CLASSES, "tiny_test"), ({"backbone_weights": "b.pt"}, CLASSES, "backbone"), ({}, (), "class")],
)
def test_refused_configurations(change, classes, named):
    with pytest.raises(InputError, match=named):
        build(ModelConfig(**{**vars(TINY), **change}), classes)


# --- as a detector ---------------------------------------------------------------------------------------------------


@pytest.fixture
def detector():
    return build(TINY, CLASSES)[0]


@pytest.fixture
def batch():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.6], [0.3, 0.4, 0.2, 0.2], [0.6, 0.6, 0.3, 0.4]])
    return Batch(
        torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        boxes,
        labels=torch.tensor([0, 2, 1]),
        image_index=torch.tensor([0, 0, 1]),
    )


def test_example_inputs_and_outputs(detector):
    inputs = detector.example_inputs(64, batch=2)
    result = detector.network.eval()(*inputs)
    assert inputs[0].shape == (2, 3, 64, 64)
    assert detector.outputs(result) is result[0]


def test_predictions(detector):
    detector.network.eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    found = detector.predict(images, DecodeSettings(confidence=1e-6, iou=0.5, max_detections=7))
    predictions = detector.network(images / 255)[0]
    best = (predictions[..., 4:5] * predictions[..., 5:]).flatten(1).amax(1)
    for one, score in zip(found, best, strict=True):
        assert one.boxes.shape == (7, 4) and set(one.labels.tolist()) <= {0, 1, 2}
        assert (one.scores.diff() <= 0).all() and not one.scores.requires_grad
        torch.testing.assert_close(one.scores[0], score.detach())
    assert all(len(one.scores) == 0 for one in detector.predict(images, DecodeSettings(confidence=0.9)))


@pytest.mark.parametrize("assignment", ["transport", "shape"])
def test_training_lowers_the_loss(detector, batch, assignment):
    detector = YOLOv7Detector("yolov7", detector.network, CLASSES, assignment)
    optimizer = torch.optim.AdamW(detector.network.train().parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        total, parts = detector.loss(batch)
        assert set(parts) == {"box", "objectness", "classification"}
        assert float(sum(parts.values())) == pytest.approx(float(total.detach()))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert all(p.grad is not None for p in detector.network.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_loss_of_images_without_boxes(detector):
    empty = Batch(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long()
    )
    total, parts = detector.loss(empty)
    total.backward()
    assert parts["box"] == parts["classification"] == 0 < parts["objectness"]


def test_autocast_leaves_the_loss_in_full_precision(detector, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = detector.loss(batch)
    assert total.dtype == torch.float32 and total.isfinite()
