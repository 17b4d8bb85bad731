"""SSD through torchvision's adapter: a background class, class rows by level, its own normalisation and anchors."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

import dcodp
from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.class_rows import COCO_CATEGORIES
from dcodp.detectors.families.ssd import build
from dcodp.errors import InputError
from dcodp.testing import assert_equivalent, enliven

CLASSES = ("circle", "square", "star")
TINY = ModelConfig(name="tiny", family="ssd", variant="tiny_test")
LITE = ModelConfig(name="ssdlite320", family="ssd", variant="ssdlite320_mobilenet_v3_large")
SSD300 = ModelConfig(name="ssd300", family="ssd", variant="ssd300_vgg16")


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return build(TINY, CLASSES)[0]


@pytest.fixture
def batch():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.25, 0.25, 0.25, 0.25], [0.5, 0.75, 0.5, 0.25]])
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    return Batch(images, boxes, labels=torch.tensor([0, 2, 1]), image_index=torch.tensor([0, 0, 1]))


def test_training_lowers_the_loss(detector, batch):
    optimizer = torch.optim.AdamW(detector.network.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        total, parts = detector.loss(batch)
        assert set(parts) == {"classification", "bbox_regression"}
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_predictions(detector, batch):
    """Class 1 everywhere: its row stands behind that of the background, once for each anchor of a level."""
    with torch.no_grad():
        for layer in detector.network.eval().head.classification_head.module_list:
            layer.weight.zero_()
            layer.bias.view(-1, 4).copy_(torch.tensor([0.0, -9.0, 4.0, -9.0]))
    settings = DecodeSettings(confidence=0.5, iou=0.9, max_detections=6)
    before = detector.network.score_thresh
    found = detector.predict(batch.images, settings)
    assert detector.network.score_thresh == before != settings.confidence
    for one in found:
        assert one.boxes.shape == (6, 4) and set(one.labels.tolist()) == {1} and (one.scores.diff() <= 0).all()


@torch.no_grad()
def test_the_same_as_torchvision_in_the_size_it_was_trained_for():
    torch.manual_seed(0)
    theirs = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).eval()
    ours = build(LITE, CLASSES)[0]
    ours.network.eval().load_state_dict(theirs.state_dict())
    images = torch.randint(0, 256, (1, 3, 320, 320), dtype=torch.uint8)
    settings = DecodeSettings(theirs.score_thresh, theirs.nms_thresh, theirs.detections_per_img)
    (found,), (wanted,) = ours.predict(images, settings), theirs(list(images / 255))
    assert len(found.boxes) == len(wanted["boxes"]) > 0
    torch.testing.assert_close(found.boxes, wanted["boxes"])
    torch.testing.assert_close(found.scores, wanted["scores"])
    assert torch.equal(found.labels, wanted["labels"] - 1)


@pytest.mark.parametrize(("model", "mean", "std"), [(LITE, 0.5, 0.5), (SSD300, 0.48235, 1 / 255)])
def test_each_keeps_its_own_normalisation_and_no_image_is_resized(model, mean, std):
    with torch.device("meta"):
        transform = build(model, CLASSES)[0].network.transform
    image = torch.full((3, 352, 352), 0.75)
    images, _ = transform([image])
    assert images.tensors.shape == (1, 3, 352, 352)
    assert float(images.tensors[0, 0, 0, 0]) == pytest.approx((0.75 - mean) / std, rel=1e-4)


@pytest.mark.parametrize("size", [320, 512])
def test_anchors_of_ssd300_stand_in_the_middle_of_their_cells(size):
    """In torchvision's they do at 300 pixels alone, where its steps divide the image into the cells."""
    with torch.device("meta"):
        generator = build(SSD300, CLASSES)[0].network.anchor_generator
    cells = [size // 8, size // 16, size // 32, size // 64, size // 64 - 2, size // 64 - 4]
    maps = [torch.zeros(1, 1, n, n) for n in cells]
    (anchors,) = generator(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), maps)
    starts = torch.tensor([0, *(n * n * k for n, k in zip(cells, (4, 6, 6, 6, 4, 4), strict=True))]).cumsum(0)
    for n, (start, end) in zip(cells, pairwise(starts.tolist()), strict=True):
        centres = (anchors[start:end, :2] + anchors[start:end, 2:]) / 2
        assert set(((centres[:, 0] * n / size - 0.5) * 1000).round().tolist()) == {1000.0 * k for k in range(n)}


@pytest.mark.parametrize("model", [TINY, LITE], ids=lambda model: model.variant)
@torch.no_grad()
def test_half_of_it_computes_what_the_zeroed_net_does(model, tmp_path):
    torch.manual_seed(0)
    detector = build(model, CLASSES)[0]
    size = 96 if model is TINY else 128
    network = detector.network.double().eval()
    graph = detector.coupling_graph(size)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    enliven(network, detector.example_inputs(size), without=plan)
    small = dcodp.prune(network, plan)
    assert 0.4 < plan.channel_ratio < 0.6
    assert_equivalent(network, small, plan, detector.example_inputs(size), outputs=lambda _: [], heads=("head",))
    dcodp.save(small, plan, tmp_path / "small.safetensors")
    loaded = dcodp.load(network, tmp_path / "small.safetensors")
    images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    one, other = (detector.with_network(net.eval()).compared(images) for net in (small, loaded))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("model", "weights"),
    [(SSD300, detection.SSD300_VGG16_Weights), (LITE, detection.SSDLite320_MobileNet_V3_Large_Weights)],
    ids=["ssd300", "ssdlite320"],
)
def test_published_number_of_parameters(model, weights):
    with torch.device("meta"):
        network = build(model, tuple(COCO_CATEGORIES[1:]))[0].network
    assert sum(p.numel() for p in network.parameters()) == weights.COCO_V1.meta["num_params"]


@pytest.mark.parametrize(("model", "last"), [(TINY, ""), (LITE, ".1")], ids=["plain", "lite"])
def test_cocos_categories_are_picked_by_name(model, last, tmp_path):
    state = build(model, tuple(COCO_CATEGORIES[1:]))[0].network.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    detector, notes = build(
        ModelConfig(**{**vars(model), "weights": str(tmp_path / "weights.safetensors")}), ("zebra", "person")
    )
    assert len(notes) == 1 and detector.fresh == 0
    own = detector.network.state_dict()
    rows = [COCO_CATEGORIES.index(c) for c in ("__background__", "zebra", "person")]
    for k, anchors in enumerate(detector.network.anchor_generator.num_anchors_per_location()):
        for kind in ("weight", "bias"):
            name = f"head.classification_head.module_list.{k}{last}.{kind}"
            assert torch.equal(own[name], state[name].unflatten(0, (anchors, 91))[:, rows].flatten(0, 1))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"variant": "n"}, "ssd300_vgg16, ssdlite320_mobilenet_v3_large"),
        ({"backbone_weights": "vgg16.pth"}, "backbone_weights does not apply"),
        ({"stride_on_1x1": True}, "only for ResNets"),
    ],
)
def test_what_does_not_fit_is_refused(changes, line):
    with pytest.raises(InputError, match=line):
        build(ModelConfig(**{**vars(LITE), **changes}), CLASSES)


def test_images_that_are_too_small_are_refused():
    with torch.device("meta"):
        detector = build(SSD300, CLASSES)[0]
    images = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    for attempt in (lambda: detector.predict(images, DecodeSettings()), lambda: detector.example_inputs(256)):
        with pytest.raises(InputError, match="image_size=256 is too small for ssd300; use 288 or more"):
            attempt()


@pytest.mark.slow
@torch.no_grad()
def test_half_of_ssd300_computes_what_the_zeroed_net_does():
    torch.manual_seed(0)
    detector = build(SSD300, CLASSES)[0]
    graph = detector.coupling_graph(288)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    network = enliven(detector.network.eval(), detector.example_inputs(288), without=plan)
    inputs = detector.example_inputs(288)
    assert_equivalent(network, dcodp.prune(network, plan), plan, inputs, outputs=lambda _: [], heads=("head",))
