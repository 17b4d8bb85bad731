"""RetinaNet through the same adapter: labels without a background, focal loss, thresholds."""

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import detection

from dcodp.config import ModelConfig
from dcodp.data.types import Batch
from dcodp.detectors.base import DecodeSettings
from dcodp.detectors.class_rows import COCO_CATEGORIES
from dcodp.detectors.families.retinanet import build
from dcodp.errors import InputError

CLASSES = ("circle", "square", "star")
TINY = ModelConfig(name="tiny", family="retinanet", variant="tiny_test")


@pytest.fixture
def detector():
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
    with torch.no_grad():
        detector.network.eval().head.classification_head.cls_logits.bias.view(9, 3).copy_(
            torch.tensor([-9.0, 2.0, -9.0])
        )
    settings = DecodeSettings(confidence=0.5, iou=0.9, max_detections=6)
    before = detector.network.score_thresh
    found = detector.predict(batch.images, settings)
    assert detector.network.score_thresh == before != settings.confidence
    for one in found:
        assert one.boxes.shape == (6, 4) and set(one.labels.tolist()) == {1} and (one.scores.diff() <= 0).all()


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        ("resnet50_fpn", detection.RetinaNet_ResNet50_FPN_Weights),
        ("resnet50_fpn_v2", detection.RetinaNet_ResNet50_FPN_V2_Weights),
    ],
)
def test_published_number_of_parameters(variant, weights):
    with torch.device("meta"):
        network = build(ModelConfig("r", "retinanet", variant), tuple(COCO_CATEGORIES))[0].network
    frozen = 53_120 if variant == "resnet50_fpn" else 0  # scales and shifts of ResNet-50's batch norms
    assert sum(p.numel() for p in network.parameters()) - frozen == weights.COCO_V1.meta["num_params"]


def test_cocos_categories_are_picked_by_name(tmp_path):
    state = build(TINY, tuple(COCO_CATEGORIES))[0].network.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    model = ModelConfig(**{**vars(TINY), "weights": str(tmp_path / "weights.safetensors")})
    detector, notes = build(model, ("zebra", "person"))
    assert len(notes) == 1
    name, rows = "head.classification_head.cls_logits", [COCO_CATEGORIES.index(c) for c in ("zebra", "person")]
    expected = state[f"{name}.weight"].view(9, 91, 32, 3, 3)[:, rows].flatten(0, 1)
    assert torch.equal(detector.network.state_dict()[f"{name}.weight"], expected)


def test_unknown_variant():
    with pytest.raises(InputError, match="resnet50_fpn_v2"):
        build(ModelConfig("r", "retinanet", "n"), CLASSES)
