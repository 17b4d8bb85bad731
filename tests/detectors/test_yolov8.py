import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dcodp import detectors
from dcodp.config import ModelConfig
from dcodp.detectors import Batch, DecodeSettings
from dcodp.detectors.checkpoint import read_checkpoint, read_state_dict
from dcodp.detectors.class_rows import COCO_CLASSES
from dcodp.detectors.families.yolov8 import YOLOv8, build
from dcodp.errors import InputError

CLASSES = ("cat", "dog", "cow")
TARGETS = Batch(
    torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    torch.tensor([[0.5, 0.5, 0.6, 0.4], [0.3, 0.4, 0.2, 0.3], [0.6, 0.6, 0.5, 0.7]]),
    torch.tensor([0, 2, 1]),
    torch.tensor([0, 0, 1]),
)
NOTHING = Batch(TARGETS.images, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))


@pytest.fixture
def detector() -> YOLOv8:
    return build(ModelConfig(), CLASSES)[0]


def test_stock_architecture():
    names = tuple(f"class {i}" for i in range(80))
    detector, notes = build(ModelConfig(), names)
    assert sum(p.numel() for p in detector.network.parameters()) == 3_157_200 and not notes
    assert {(m.eps, m.momentum) for m in detector.network.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.03)}
    assert [n for n, p in detector.network.named_parameters() if not p.requires_grad] == ["model.22.dfl.conv.weight"]


def test_initial_weights_follow_the_global_seed():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build(ModelConfig(), CLASSES)[0].network.parameters()])

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_outputs_are_the_predictions_only(detector):
    detector.network.eval()
    result = detector.network(*detector.example_inputs(64, batch=2))
    assert detector.outputs(result).shape == (2, 4 + len(CLASSES), 8 * 8 + 4 * 4 + 2 * 2)


def test_loss_is_ultralytics_divided_by_the_number_of_images(detector):
    detector.network.train()
    state = copy.deepcopy(detector.network.state_dict())
    loss, parts = detector.loss(TARGETS)
    assert set(parts) == {"box", "cls", "dfl"}
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), loss)
    torch.testing.assert_close(detector.losses(TARGETS)["boxes"], parts["box"] + parts["dfl"])
    assert loss.item() == pytest.approx(sum(part.item() for part in parts.values()))
    detector.network.load_state_dict(state)  # the running statistics have moved
    detector.network.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    fields = {
        "img": TARGETS.images / 255,
        "batch_idx": TARGETS.image_index,
        "cls": TARGETS.labels,
        "bboxes": TARGETS.boxes,
    }
    official, _ = detector.network.init_criterion()(detector.network(fields["img"]), fields)
    assert float(official.sum().detach()) == pytest.approx(2 * float(loss.detach()), rel=1e-6)


def test_loss_without_objects_still_trains_the_scores(detector):
    detector.network.train()
    loss, parts = detector.loss(NOTHING)
    loss.backward()
    assert parts["box"].item() == parts["dfl"].item() == 0 < parts["cls"].item()
    assert detector.network.model[22].cv3[0][2].weight.grad.abs().sum() > 0


def test_swapped_network_gets_a_loss_of_its_own(detector):
    detector.network.train()
    detector.loss(TARGETS)
    other = build(ModelConfig(), ("one",))[0].network.train()
    swapped = detector.with_network(other)
    single = Batch(TARGETS.images, TARGETS.boxes, torch.zeros(3, dtype=torch.long), TARGETS.image_index)
    assert swapped.network is other and detector.network is not other
    assert torch.isfinite(swapped.loss(single)[0]) and swapped._criterion[0] is other
    assert torch.isfinite(detector.loss(TARGETS)[0])


def test_predict_gives_boxes_in_input_pixels(detector):
    """A head forced to one distance everywhere: 4 cells to each side of the cell's centre, class 1."""
    head = detector.network.eval().model[22]
    with torch.no_grad():
        for box, score in zip(head.cv2, head.cv3, strict=True):
            box[2].weight.zero_(), score[2].weight.zero_()
            box[2].bias.fill_(-50.0).view(4, 16)[:, 4] = 50.0
            score[2].bias.copy_(torch.tensor([-9.0, 2.0, -9.0]))
    found = detector.predict(TARGETS.images, DecodeSettings(confidence=0.25, iou=1.0, max_detections=300))
    assert len(found) == 2 and len(found[0].boxes) == 64 + 16 + 4
    assert set(found[0].labels.tolist()) == {1}
    assert found[0].scores.tolist() == pytest.approx([1 / (1 + 2.718281828**-2)] * 84)
    assert found[0].boxes[0].tolist() == pytest.approx([4 - 32, 4 - 32, 4 + 32, 4 + 32], abs=1e-3)
    assert found[0].boxes[-1].tolist() == pytest.approx([48 - 128, 48 - 128, 48 + 128, 48 + 128], abs=1e-3)


def test_weights_load_entirely_with_as_many_classes(detector, tmp_path):
    torch.save({"model": detector.network.half()}, tmp_path / "own.pt")
    loaded, notes = build(ModelConfig(weights=str(tmp_path / "own.pt")), CLASSES)
    expected = detector.network.float().state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.network.state_dict().items())
    assert len(notes) == 1 and "class branch was kept" in notes[0] and f"for {CLASSES[0]}" in notes[0]


def test_unknown_classes_start_with_fresh_rows_and_their_prior(detector, tmp_path):
    torch.save(detector.network.state_dict(), tmp_path / "three.pt")
    loaded, (note,) = build(ModelConfig(weights=str(tmp_path / "three.pt")), ("cat", "dog", "cow", "hen", "pig"))
    before, after = detector.network.state_dict(), loaded.network.state_dict()
    fresh = [f"model.22.cv3.{i}.2.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert [k for k in after if after[k].shape != before[k].shape] == fresh
    assert all(torch.equal(after[k], before[k]) for k in after if k not in fresh)
    assert note.startswith("weights of 3 classes in a detector of 5: no class is known by name")
    assert loaded.fresh == 1.0 and detector.fresh == 0.0
    expected = torch.log(torch.tensor(5 / 5 / (640 / 16) ** 2))
    assert torch.allclose(after["model.22.cv3.1.2.bias"], expected)


def test_known_classes_keep_their_rows_and_the_width_behind_them(tmp_path):
    """As ultralytics' own trainer does, but for the dialect of VOC."""
    trained = build(ModelConfig(), COCO_CLASSES)[0].network
    torch.save(trained.state_dict(), tmp_path / "coco.pt")  # a state dict tells no names
    loaded, (note,) = build(ModelConfig(weights=str(tmp_path / "coco.pt")), ("tvmonitor", "wombat", "dog"))
    before, after = trained.state_dict(), loaded.network.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in after if after[k].shape == before[k].shape)
    assert {k.split(".")[4] for k in after if after[k].shape != before[k].shape} == {"2"}
    rows = [COCO_CLASSES.index("tv"), COCO_CLASSES.index("dog")]
    assert torch.equal(after["model.22.cv3.0.2.weight"][[0, 2]], before["model.22.cv3.0.2.weight"][rows])
    assert note.endswith("the class rows of 2 were copied by name, those of wombat start afresh")
    assert {m.eps for m in loaded.network.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert torch.isfinite(loaded.network.eval()(*loaded.example_inputs(64))[0]).all()


def test_a_class_branch_of_its_own_width_is_loaded_again(tmp_path):
    """What was fine-tuned from weights of other classes, ours or ultralytics', has another width than the stock net."""
    torch.save(build(ModelConfig(), COCO_CLASSES)[0].network.state_dict(), tmp_path / "coco.pt")
    tuned = build(ModelConfig(weights=str(tmp_path / "coco.pt")), CLASSES)[0].network
    torch.save(tuned.state_dict(), tmp_path / "tuned.pt")
    again, notes = build(ModelConfig(weights=str(tmp_path / "tuned.pt")), CLASSES)
    assert (
        not notes
        and not again.fresh
        and all(torch.equal(v, tuned.state_dict()[k]) for k, v in again.network.state_dict().items())
    )


@pytest.mark.parametrize(
    ("model", "classes", "message"),
    [
        (ModelConfig(variant="t"), CLASSES, "model.variant=t is not a YOLOv8; use one of n, s, m, l, x"),
        (ModelConfig(backbone_weights="b.pth"), CLASSES, "model.backbone_weights does not apply to yolov8"),
        (ModelConfig(weights="none.pt"), CLASSES, "none.pt does not exist"),
        (ModelConfig(family="yolov99"), CLASSES, "model.family=yolov99 is not known; use one of faster_rcnn, "),
        (ModelConfig(), (), "no classes"),
    ],
)
def test_bad_input_is_one_clear_line(model, classes, message):
    with pytest.raises(InputError, match=message):
        detectors.build(model, classes)


def test_weights_of_another_architecture_are_refused_by_name(detector, tmp_path):
    state = detector.network.state_dict()
    torch.save({k: v for k, v in state.items() if "model.9." not in k}, tmp_path / "less.pt")
    with pytest.raises(InputError, match=r"another architecture: model\.9\.cv1\.conv\.weight is missing.*and 7 more"):
        build(ModelConfig(weights=str(tmp_path / "less.pt")), CLASSES)
    torch.save(state, tmp_path / "n.pt")
    with pytest.raises(InputError, match=r"model\.0\.conv\.weight has shape \(16, 3, 3, 3\), not \(32, 3, 3, 3\)"):
        build(ModelConfig(variant="s", weights=str(tmp_path / "n.pt")), CLASSES)


def test_ultralytics_leaves_no_trace_in_the_process(tmp_path):
    """A fresh process, so that it is imported there; only its settings file may appear, in the folder given."""
    script = """
import os, numpy as np, torch, PIL.Image
def process():
    shown = np.get_printoptions(), str(torch.linspace(0, 1, 30))
    return torch.save, PIL.Image.open, shown, os.environ.get("OMP_NUM_THREADS")
before = process()
from dcodp import _ultralytics
_ultralytics.prepare()
assert before == process(), (before, process())
from ultralytics.utils import AUTOINSTALL, ONLINE
assert not AUTOINSTALL and not ONLINE
"""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS" and not k.startswith("YOLO_")}
    environment = {**kept, "YOLO_CONFIG_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.realdata
def test_official_checkpoint_is_read_tensor_by_tensor(realdata):
    import ultralytics.nn.modules as modules
    from ultralytics.nn.tasks import DetectionModel

    path = realdata / "weights" / "yolov8n.pt"
    allowed = [DetectionModel, set, nn.Sequential, nn.ModuleList, nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.MaxPool2d]
    allowed += [nn.Upsample, modules.Conv, modules.C2f, modules.SPPF, modules.Concat, modules.Detect, modules.DFL]
    with torch.serialization.safe_globals([*allowed, modules.block.Bottleneck]):
        official = torch.load(path, weights_only=True)["model"].float().state_dict()
    state = read_state_dict(path)
    assert list(state) == list(official) and all(torch.equal(state[k], official[k]) for k in state)


@pytest.mark.realdata
def test_official_checkpoint_finds_what_is_in_a_picture(realdata):
    from dcodp.data.images import letterbox, read_image

    path = str(realdata / "weights" / "yolov8n.pt")
    names = read_checkpoint(path).names
    detector, notes = build(ModelConfig(weights=path), names)
    assert not notes and len(names) == 80
    square, _ = letterbox(read_image(realdata / "coco" / "val2017" / "000000000139.jpg"), 320)
    images = torch.from_numpy(square).permute(2, 0, 1)[None]
    detector.network.eval()
    (found,) = detector.predict(images, DecodeSettings(confidence=0.4))
    assert {"tv", "person", "chair"} <= {names[label] for label in found.labels.tolist()}


@pytest.mark.realdata
def test_official_checkpoint_with_other_classes_keeps_everything_but_the_class_rows(realdata):
    path = realdata / "weights" / "yolov8n.pt"
    detector, (note,) = build(ModelConfig(weights=str(path)), (CLASSES[0], "wombat"))
    official, own = read_state_dict(path), detector.network.state_dict()
    changed = [k for k in own if own[k].shape != official[k].shape or not torch.equal(own[k], official[k])]
    assert changed == [f"model.22.cv3.{i}.2.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert note.endswith("detector of 2: the class rows of 1 were copied by name, those of wombat start afresh")
