"""YOLOv7 against numbers of the official implementation, computed with the official weights."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dcodp.config import DatasetConfig, EvaluationConfig, ModelConfig
from dcodp.data.splits import load
from dcodp.data.types import Batch
from dcodp.detectors.families.yolov7 import build, fuse, yolov7
from dcodp.detectors.families.yolov7.assign import assign_by_shape, assign_by_transport
from dcodp.detectors.families.yolov7.head import ANCHORS, STRIDES
from dcodp.detectors.families.yolov7.loss import Gains, detection_loss
from dcodp.evaluation import coco_statistics, predict

pytestmark = pytest.mark.realdata
KINDS = {"plain": "shape", "ota": "transport"}
CELLS = torch.tensor(ANCHORS, dtype=torch.float32) / torch.tensor(STRIDES)[:, None, None]


def arrays(path) -> dict[str, torch.Tensor]:
    with np.load(path) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


@pytest.fixture(scope="module")
def reference(realdata):
    return arrays(realdata / "reference" / "yolov7_reference.npz")


@pytest.fixture(scope="module")
def detector(realdata):
    weights = str(realdata / "weights" / "yolov7_coco_state_dict_fp16.pt")
    model = ModelConfig(name="yolov7", family="yolov7", variant="base", weights=weights)
    detector, notes = build(model, tuple(f"class {i}" for i in range(80)))
    assert len(notes) == 1  # the plain convolutions
    return detector


@pytest.fixture(scope="module")
def results(detector, reference):
    """Predictions [3, 25200, 85] and raw levels of the three images."""
    with torch.no_grad():
        predictions, raw = detector.network.eval()(reference["input_uint8"] / 255)
    return SimpleNamespace(predictions=predictions, raw=raw, flat=torch.cat([r.flatten(1, 3) for r in raw], 1))


def test_layers(realdata):
    facts = json.loads((realdata / "reference" / "yolov7_facts.json").read_text())
    with torch.device("meta"):
        network = yolov7(80)
    for row, layer, sources in zip(facts["layers"], network.model, network.sources, strict=True):
        index, given = row["index"], row["from_"] if isinstance(row["from_"], list) else [row["from_"]]
        assert [s if s >= 0 else max(index + s, -1) for s in given] == list(sources), index
        if index not in (102, 103, 104):  # plain convolutions there
            assert sum(p.numel() for p in layer.parameters()) == row["params"], index


def test_raw_heads(results, reference):
    rows = reference["top300_index"].long()[..., None].expand(-1, -1, 85)
    torch.testing.assert_close(results.flat.gather(1, rows), reference["top300_raw"], rtol=0, atol=1e-4)
    for raw, stride in zip(results.raw, STRIDES, strict=True):
        y, x = reference[f"probe_cells_s{stride}"].T
        probes = raw[:, :, y, x].transpose(1, 2)
        torch.testing.assert_close(probes, reference[f"probe_raw_s{stride}"], rtol=0, atol=1e-4)
        expected = reference[f"raw_obj_logit_s{stride}_f16"].float()
        torch.testing.assert_close(raw[..., 4], expected, rtol=2e-3, atol=1e-3)
        mean = reference[f"raw_channel_mean_s{stride}"].float()
        torch.testing.assert_close(raw.mean((2, 3)), mean, rtol=1e-4, atol=1e-4)


def test_decoded_boxes(results, reference):
    rows = reference["top300_index"].long()[..., None].expand(-1, -1, 85)
    found, expected = results.predictions.gather(1, rows), reference["top300_decoded"]
    torch.testing.assert_close(found[..., :4], expected[..., :4], rtol=0, atol=0.05)
    torch.testing.assert_close(found[..., 4:], expected[..., 4:], rtol=0, atol=1e-5)


def test_fusing(detector, results, reference):
    with torch.no_grad():
        _, raw = fuse(detector.network)(reference["input_uint8"][:1] / 255)
    for fused, expected in zip(raw, results.raw, strict=True):
        assert (fused - expected[:1]).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(scope="module")
def batch(reference):
    targets = reference["loss_targets"]
    return Batch(reference["input_uint8"][:2], targets[:, 2:], targets[:, 1].long(), targets[:, 0].long())


@pytest.fixture(scope="module")
def heads(detector, results, batch):
    """Raw levels with running and with batch statistics; the network is left as it was."""
    state = {name: tensor.clone() for name, tensor in detector.network.state_dict().items()}
    with torch.no_grad():
        trained = detector.network.train()(batch.images / 255)
    detector.network.load_state_dict(state)
    detector.network.eval()
    return {"evalbn": [r[:2].clone() for r in results.raw], "trainbn": [r.clone() for r in trained]}


@pytest.mark.parametrize("statistics", ["evalbn", "trainbn"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss(detector, heads, batch, reference, kind, statistics):
    detector.assignment = KINDS[kind]
    raw = [level.clone().requires_grad_() for level in heads[statistics]]
    parts = list(detector.loss_of(raw, batch).values())
    found = torch.stack([*parts, sum(parts)])
    torch.testing.assert_close(found, reference[f"loss_{kind}_{statistics}"][:4], rtol=1e-5, atol=0)
    # The reference differentiates the sum over the two images, we have their mean.
    gradients = torch.autograd.grad(2 * sum(parts), raw)
    sums = [torch.stack([g.abs().sum(), g.norm(), g[..., 4].abs().sum()]) for g in gradients]
    expected = reference[f"loss_{kind}_{statistics}_grad"].float()
    torch.testing.assert_close(torch.stack(sums), expected, rtol=1e-3, atol=0)


def rows_of(match, last) -> torch.Tensor:
    return torch.stack([match.image, match.anchor, match.y, match.x, last], 1)


def in_order(rows) -> list[list[int]]:
    return sorted(rows.tolist())


@pytest.mark.parametrize("statistics", ["evalbn", "trainbn"])
def test_assignment(heads, reference, statistics):
    targets, raw = reference["loss_targets"], heads[statistics]
    for match, stride in zip(assign_by_shape(raw, targets, CELLS), STRIDES, strict=True):
        rows = rows_of(match, targets[match.target, 1].long())
        assert rows.tolist() == reference[f"plain_assign_s{stride}"].tolist()  # the order too: the last row counts
    for match, stride in zip(assign_by_transport(raw, targets, CELLS, STRIDES), STRIDES, strict=True):
        expected = reference[f"ota_assign_{statistics}_s{stride}"]
        assert in_order(rows_of(match, match.target)) == in_order(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_small_loss_with_gradients(realdata, kind):
    small = arrays(realdata / "reference" / "yolov7_loss_small_reference.npz")
    raw = [small[f"p_s{stride}"].requires_grad_() for stride in STRIDES]
    targets = small["targets"]
    if kind == "plain":
        matches = assign_by_shape(raw, targets, CELLS)
    else:
        matches = assign_by_transport(raw, targets, CELLS, STRIDES)
    parts = list(detection_loss(raw, targets, matches, CELLS, Gains()).values())
    torch.testing.assert_close(torch.stack([*parts, sum(parts)]), small[f"{kind}/loss"][:4], rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(len(raw[0]) * sum(parts), raw)
    for gradient, match, stride in zip(gradients, matches, STRIDES, strict=True):
        torch.testing.assert_close(gradient, small[f"{kind}/grad_s{stride}"], rtol=1e-5, atol=1e-8)
        last = targets[match.target, 1].long() if kind == "plain" else match.target
        assert in_order(rows_of(match, last)) == in_order(small[f"{kind}/assign_s{stride}"])


@pytest.mark.slow
def test_average_precision(realdata, detector, reference):
    """The first 100 images of val2017 in a 640-pixel square, with the official rule: a box may have several classes.

    Officially 0.562; sizes are rounded differently there where an image is resized, and odd padding by half a pixel.
    """
    config = DatasetConfig(name="coco2017", layout="coco", train="train2017", val="val2017")
    whole = load(config, realdata, "val")
    chosen = {int(i) for i in reference["eval100_image_ids"]}
    images = tuple(image for image in whole.images if int(image.id) in chosen)
    assert len(images) == 100
    detector.network.eval()
    subset = dataclasses.replace(whole, images=images)
    settings = EvaluationConfig(batch=4, multi_label=True)
    found = predict(detector, subset, 640, settings, progress=lambda done, total: None)
    statistics = list(coco_statistics(subset, found).values())[:12]
    expected = reference["eval100_square640_nms0.6_cocostats"].tolist()
    assert statistics[0] == pytest.approx(expected[0], abs=0.005)
    assert statistics[1] == pytest.approx(expected[1], abs=0.01)
