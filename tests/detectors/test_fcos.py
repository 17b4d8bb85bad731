"""FCOS through torchvision's adapter: one box at each place, how central it is, group normalisation in the head."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import detection

import dcodp
from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.class_rows import COCO_CATEGORIES
from dcodp.detectors.families.fcos import build
from dcodp.errors import InputError
from dcodp.testing import assert_equivalent, enliven

CLASSES = ("circle", "square", "star")
TINY = ModelConfig(name="tiny", family="fcos", variant="tiny_test")


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
        assert set(parts) == {"classification", "bbox_regression", "bbox_ctrness"}
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_images_without_objects_can_be_trained_on(detector):
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    detector.network.train()
    none = Batch(images, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    total, parts = detector.loss(none)
    total.backward()
    assert torch.isfinite(total) and parts["bbox_regression"].item() == 0


def test_predictions(detector, batch):
    with torch.no_grad():
        detector.network.eval().head.classification_head.cls_logits.bias.copy_(torch.tensor([-9.0, 2.0, -9.0]))
    settings = DecodeSettings(confidence=0.5, iou=0.9, max_detections=6)
    before = detector.network.score_thresh
    found = detector.predict(batch.images, settings)
    assert detector.network.score_thresh == before != settings.confidence
    for one in found:
        assert len(one.boxes) <= 6 and set(one.labels.tolist()) == {1} and (one.scores.diff() <= 0).all()


@torch.no_grad()
def test_half_of_it_computes_what_the_zeroed_net_does(detector, tmp_path):
    network = detector.network.double().eval()
    graph = detector.coupling_graph(96)
    assert any(g.name.startswith("backbone") for g in graph.groups)
    plan = dcodp.select(graph, {g.name: torch.rand(g.channels) for g in graph.groups}, ratio=0.5)
    enliven(network, detector.example_inputs(96), without=plan)
    small = dcodp.prune(network, plan)
    assert_equivalent(network, small, plan, detector.example_inputs(96), outputs=lambda _: [], heads=("head",))
    kept = small.head.classification_head.cls_logits.weight.shape
    assert kept[0] == len(CLASSES)
    dcodp.save(small, plan, tmp_path / "small.safetensors")
    loaded = dcodp.load(network, tmp_path / "small.safetensors")
    images = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    one, other = (detector.with_network(net.eval()).compared(images) for net in (small, loaded))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_published_number_of_parameters():
    with torch.device("meta"):
        network = build(ModelConfig("f", "fcos", "resnet50_fpn"), tuple(COCO_CATEGORIES))[0].network
    frozen = 53_120  # scales and shifts of ResNet-50's batch norms
    published = detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert sum(p.numel() for p in network.parameters()) - frozen == published


def test_cocos_categories_are_picked_by_name(tmp_path):
    state = build(TINY, tuple(COCO_CATEGORIES))[0].network.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    model = ModelConfig(**{**vars(TINY), "weights": str(tmp_path / "weights.safetensors")})
    detector, notes = build(model, ("zebra", "person"))
    assert len(notes) == 1 and detector.fresh == 0
    name, rows = "head.classification_head.cls_logits", [COCO_CATEGORIES.index(c) for c in ("zebra", "person")]
    assert torch.equal(detector.network.state_dict()[f"{name}.weight"], state[f"{name}.weight"][rows])


def test_weights_of_another_net_are_refused(tmp_path):
    state = build(TINY, CLASSES)[0].network.state_dict()
    state.pop("head.regression_head.bbox_ctrness.weight")
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="give weights of fcos tiny_test"):
        build(ModelConfig(**{**vars(TINY), "weights": str(tmp_path / "weights.safetensors")}), CLASSES)


def test_unknown_variant():
    with pytest.raises(InputError, match="resnet50_fpn"):
        build(ModelConfig("f", "fcos", "n"), CLASSES)
