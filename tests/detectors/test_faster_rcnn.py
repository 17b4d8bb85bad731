"""Faster R-CNN: what goes into torchvision's network, what comes out, and which weights fit."""

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import detection, mobilenet_v3_large
from torchvision.ops.misc import FrozenBatchNorm2d

import dcodp
from dcodp.config import EvaluationConfig, ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.class_rows import COCO_CATEGORIES
from dcodp.detectors.families.faster_rcnn import build
from dcodp.detectors.torchvision_common import IMAGENET_MEAN, IMAGENET_STD, NarrowResNet, targets_of
from dcodp.errors import InputError
from dcodp.evaluation.measuring import cost

CLASSES = ("circle", "square", "star")


@torch.no_grad()
def raw_outputs(network: nn.Module, *inputs: Any) -> dict[str, list[Tensor]]:
    """What the heads say before any proposal or detection is dropped, for comparing two networks.

    "objectness" and "proposals" [B, A or 4A, H, W] per level, "classes" [R, C + 1] and "boxes" [R, 4 (C + 1)] of the
    R proposals of all images.
    """
    seen: dict[str, list[Tensor]] = {}

    def keep(*names: str) -> Any:
        def hook(module: nn.Module, args: Any, outputs: Any) -> None:
            for name, output in zip(names, outputs, strict=True):
                seen[name] = list(output) if isinstance(output, list | tuple) else [output]

        return hook

    heads: Any = network
    handles = [
        heads.rpn.head.register_forward_hook(keep("objectness", "proposals")),
        heads.roi_heads.box_predictor.register_forward_hook(keep("classes", "boxes")),
    ]
    try:
        network(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def config(**changes) -> ModelConfig:
    return ModelConfig(**{"name": "tiny", "family": "faster_rcnn", "variant": "tiny_test", **changes})


def saved(path, state) -> str:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return str(path)


@pytest.fixture
def detector():
    return build(config(), CLASSES)[0]


@pytest.fixture
def batch():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25], [0.5, 0.75, 0.5, 0.25]])
    return Batch(
        torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8),
        boxes,
        labels=torch.tensor([0, 2, 1]),
        image_index=torch.tensor([0, 0, 1]),
    )


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("resnet50_fpn", detection.FasterRCNN_ResNet50_FPN_Weights),
        ("resnet50_fpn_v2", detection.FasterRCNN_ResNet50_FPN_V2_Weights),
        ("mobilenet_v3_large_fpn", detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights),
    ],
)
def test_published_number_of_parameters(variant, weights):
    with torch.device("meta"):
        network = build(config(variant=variant), tuple(COCO_CATEGORIES[1:]))[0].network
    frozen = 0
    if variant != "resnet50_fpn_v2":  # the published net has its batch norms frozen
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        frozen = sum(p.numel() for m in norms for p in m.parameters())
    count = sum(p.numel() for p in network.parameters())
    assert count - frozen == weights.COCO_V1.meta["num_params"]
    assert all(p.requires_grad for p in network.parameters())


# --- inputs and targets ----------------------------------------------------------------------------------------------


def test_targets(batch):
    first, second = targets_of(batch, first_label=1)
    assert first["boxes"].tolist() == [[24, 36, 72, 60], [12, 12, 36, 36]] and first["labels"].tolist() == [1, 3]
    assert second["boxes"].tolist() == [[24, 60, 72, 84]] and second["labels"].tolist() == [2]


def test_boxes_without_area_and_images_without_boxes(detector, batch):
    batch.boxes[2, 2] = 0.0
    assert targets_of(batch, 1)[1]["boxes"].shape == (0, 4)
    total, _ = detector.loss(batch)
    total.backward()
    assert total.isfinite()


def test_images_are_normalised_and_not_resized(detector, batch):
    seen = []
    detector.network.eval().backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    detector.predict(batch.images, DecodeSettings())
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(seen[0], (batch.images / 255 - mean) / std)


def test_loss_is_the_sum_of_torchvisions_four(detector, batch):
    torch.manual_seed(1)  # anchors and proposals are sampled
    total, parts = detector.loss(batch)
    torch.manual_seed(1)
    losses = detector.network(list(batch.images / 255), targets_of(batch, 1))
    assert set(parts) == set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    torch.testing.assert_close(total, sum(losses.values()))


def test_training_lowers_the_loss(detector, batch):
    optimizer = torch.optim.AdamW(detector.network.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        total, _ = detector.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert all(p.grad is not None for p in detector.network.parameters())
    assert sum(losses[-3:]) / 3 < 0.7 * losses[0]


# --- predictions -----------------------------------------------------------------------------------------------------


def test_predictions(detector, batch):
    detector.network.eval()
    found = detector.predict(batch.images, DecodeSettings(confidence=0.0, iou=1.0, max_detections=8))
    assert len(found) == 2
    for one in found:
        assert one.boxes.shape == (8, 4) and one.boxes.min() >= 0 and one.boxes.max() <= 96
        assert set(one.labels.tolist()) <= {0, 1, 2} and (one.scores.diff() <= 0).all()


def test_labels_leave_the_background_out(detector, batch):
    with torch.no_grad():
        detector.network.eval().roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, -9.0, -9.0, 9.0]))
    found = detector.predict(batch.images, DecodeSettings(confidence=0.5))
    assert len(found[0].labels) and set(found[0].labels.tolist()) == {2}


def test_thresholds_hold_for_one_call(detector, batch):
    heads, names = detector.network.eval().roi_heads, ("score_thresh", "nms_thresh", "detections_per_img")
    before = [getattr(heads, name) for name in names]
    seen = []
    heads.register_forward_pre_hook(lambda module, args: seen.append([getattr(module, name) for name in names]))
    detector.predict(batch.images, DecodeSettings(0.25, 0.45, 5))
    with pytest.raises(RuntimeError):
        detector.predict(batch.images[:, :2], DecodeSettings(0.25, 0.45, 5))
    assert seen[0] == [0.25, 0.45, 5]
    assert [getattr(heads, name) for name in names] == before != seen[0]


def test_example_inputs_and_outputs(detector):
    (images,) = detector.example_inputs(96, batch=2)
    result = detector.network.eval()([*images])
    assert [tuple(image.shape) for image in images] == [(3, 96, 96)] * 2
    assert detector.outputs(result) is result


def test_raw_outputs_of_the_heads(detector):
    seen = raw_outputs(detector.network.eval(), *detector.example_inputs(96, batch=2))
    assert [tuple(t.shape) for t in seen["objectness"]] == [(2, 3, n, n) for n in (24, 12, 6, 3, 2)]
    assert [tuple(t.shape) for t in seen["proposals"]] == [(2, 12, n, n) for n in (24, 12, 6, 3, 2)]
    (classes,), (boxes,) = seen["classes"], seen["boxes"]
    assert classes.shape[1] == 4 and boxes.shape == (len(classes), 16)
    assert not detector.network.rpn.head._forward_hooks


# --- weights ---------------------------------------------------------------------------------------------------------


def test_backbone_weights_freeze_the_batch_norms(tmp_path):
    backbone = NarrowResNet()
    nn.init.normal_(backbone.bn1.weight)
    path = saved(tmp_path / "backbone.safetensors", backbone.state_dict())  # with the classifier and counters
    detector, notes = build(config(backbone_weights=path), CLASSES)
    body = detector.network.backbone.body
    assert notes == [] and isinstance(body.bn1, FrozenBatchNorm2d)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in detector.network.modules())
    image = torch.rand(1, 3, 64, 64)
    expected = backbone.eval().layer1(backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(image)))))
    torch.testing.assert_close(body(image)["0"], expected)


def test_mobilenet_backbone_weights(tmp_path):
    backbone = mobilenet_v3_large()
    path = saved(tmp_path / "backbone.safetensors", backbone.state_dict())
    detector, _ = build(config(variant="mobilenet_v3_large_fpn", backbone_weights=path), CLASSES)
    own = detector.network.backbone.body.state_dict()
    assert torch.equal(own["16.0.weight"], backbone.state_dict()["features.16.0.weight"])
    assert isinstance(detector.network.backbone.body["0"][1], FrozenBatchNorm2d)


def test_backbone_weights_of_another_network(tmp_path):
    path = saved(tmp_path / "backbone.safetensors", {"conv1.weight": torch.zeros(32, 3, 7, 7)})
    with pytest.raises(InputError, match=r"backbone.safetensors is of another architecture: .*bn1"):
        build(config(backbone_weights=path), CLASSES)


def test_stride_on_the_first_convolution():
    body = build(config(stride_on_1x1=True), CLASSES)[0].network.backbone.body
    usual = build(config(), CLASSES)[0].network.backbone.body
    for layer in ("layer2", "layer3", "layer4"):
        assert (body[layer][0].conv1.stride, body[layer][0].conv2.stride) == ((2, 2), (1, 1))
        assert (usual[layer][0].conv1.stride, usual[layer][0].conv2.stride) == ((1, 1), (2, 2))
    with torch.device("meta"), pytest.raises(InputError, match="stride_on_1x1"):
        build(config(variant="mobilenet_v3_large_fpn", stride_on_1x1=True), CLASSES)


def test_weights_of_the_whole_detector(tmp_path, detector, batch):
    path = saved(tmp_path / "weights.safetensors", detector.network.state_dict())
    again, notes = build(config(weights=path), CLASSES)
    assert notes == []
    expected, found = (d.network.eval()(list(batch.images / 255))[0]["scores"] for d in (detector, again))
    torch.testing.assert_close(found, expected)


def test_cocos_categories_are_picked_by_name(tmp_path):
    state = build(config(), tuple(COCO_CATEGORIES[1:]))[0].network.state_dict()
    path = saved(tmp_path / "weights.safetensors", state)
    detector, notes = build(config(weights=path), ("zebra", "person"))
    assert notes == ["weights of 90 classes in a detector of 2: the class rows of 2 were copied by name"]
    predictor, name = detector.network.roi_heads.box_predictor, "roi_heads.box_predictor"
    rows = [0, COCO_CATEGORIES.index("zebra"), COCO_CATEGORIES.index("person")]
    assert torch.equal(predictor.cls_score.weight, state[f"{name}.cls_score.weight"][rows])
    assert torch.equal(predictor.bbox_pred.bias, state[f"{name}.bbox_pred.bias"].view(91, 4)[rows].flatten())


def test_weights_for_other_classes(tmp_path, detector):
    path = saved(tmp_path / "weights.safetensors", detector.network.state_dict())
    other, notes = build(config(weights=path), ("a", "b"))
    assert len(notes) == 1 and notes[0].startswith("weights of 3 classes in a detector of 2: ")
    own, theirs = (d.network.roi_heads.box_predictor.cls_score.weight for d in (other, detector))
    assert torch.equal(own[0], theirs[0]) and not torch.equal(own[1:], theirs[1:3])  # the background's is kept
    assert other.fresh == 1.0
    assert other.network.roi_heads.box_predictor.cls_score.out_features == 3
    assert torch.equal(other.network.rpn.head.cls_logits.weight, detector.network.rpn.head.cls_logits.weight)


def test_names_of_older_torchvision_versions(tmp_path, detector):
    state = detector.network.state_dict()
    renamed = re.compile(r"(head\.conv|(?:inner|layer)_blocks\.\d)(\.0)+\.")
    old = {renamed.sub(r"\1.", name): tensor for name, tensor in state.items()}
    assert "rpn.head.conv.weight" in old and "backbone.fpn.inner_blocks.0.bias" in old
    again, _ = build(config(weights=saved(tmp_path / "weights.safetensors", old)), CLASSES)
    for name in ("rpn.head.conv.0.0.weight", "backbone.fpn.layer_blocks.3.0.bias"):
        assert torch.equal(again.network.state_dict()[name], state[name])


@pytest.mark.parametrize(
    ("change", "classes", "named"), [({"variant": "n"}, CLASSES, "resnet50_fpn"), ({}, (), "class")]
)
def test_refused_configurations(change, classes, named):
    with pytest.raises(InputError, match=named):
        build(config(**change), classes)


@pytest.mark.realdata
def test_real_backbone_weights(weights):
    path = str(weights("resnet50_imagenet_stride1x1_fp16.pth"))
    model = config(variant="resnet50_fpn", backbone_weights=path, stride_on_1x1=True)
    detector, notes = build(model, CLASSES)
    body = detector.network.backbone.body
    assert notes == [] and body["layer4"][0].conv1.stride == (2, 2)
    with torch.no_grad():
        maps = body(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(256, 16, 16), (512, 8, 8), (1024, 4, 4), (2048, 2, 2)]
    assert all(0.01 < m.mean() < 10 for m in maps.values())


def test_costs_do_not_depend_on_what_is_found():
    """One network finds nothing but duplicates, the other is as initialised: both are counted with all proposals."""
    found = []
    for scale in (0.0, 1.0):
        torch.manual_seed(0)
        made, _ = build(config(), CLASSES)
        with torch.no_grad():
            made.network.rpn.head.bbox_pred.weight.mul_(scale)
        made.network.eval()
        with made.most_work():
            graph = dcodp.trace(made.network, made.example_inputs(96), outputs=made.outputs)
        assert made.network.rpn.nms_thresh == 0.7
        found.append(cost(made, 96, EvaluationConfig(latency_runs=1))["flops"])
        plan = dcodp.select(
            graph, {g.name: torch.arange(g.channels) for g in graph.groups}, target="flops:0.4", allocation="global"
        )
        small = made.with_network(dcodp.prune(made.network, plan))
        assert abs(cost(small, 96, EvaluationConfig(latency_runs=1))["flops"] / found[-1] - 0.4) <= 0.01
        assert graph.flops() == found[-1]
    assert found[0] == found[1]
