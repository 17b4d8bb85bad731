"""Every format computes what the net computes, appears whole or not at all, and one that fails stops no other."""

import json

import pytest
import torch
from nets import small_yolo
from torch import nn

from dcodp.errors import InputError
from dcodp.export import SomeFailed, compare, eager, export, open_exported, require_equal
from dcodp.export import formats as formats_module
from dcodp.export.formats import FORMATS, Exported

IMAGES = [torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
IMAGES[1] = IMAGES[1].to(memory_format=torch.channels_last)  # as images lie that were read from files


class Net(nn.Module):
    """Two outputs that matter, and one that does not."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        features = self.body(x)
        return {"raw": self.head(features), "mean": features.mean((2, 3))}, features


def first(result):
    return result[0]


@pytest.fixture
def net():
    net = Net()
    net(torch.rand(4, 3, 32, 32))  # running statistics that are not those of a new net
    return net.eval()


def needs(key):
    for package in FORMATS[key].needs:
        pytest.importorskip(package)
    if key == "onnx":
        pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("key", FORMATS)
def test_files_compute_what_the_net_computes(net, key, tmp_path):
    needs(key)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (written,) = export(net, IMAGES[0], first, [key], tmp_path, "small")
    assert written.path == tmp_path / f"small{FORMATS[key].suffix}" and written.size > 500
    found = compare(eager(net, first, 1), open_exported(written.path, 1), IMAGES)
    assert found.holds() and found.images == 2 and len(found.relative) == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == [written.path.name]  # no temporary files are left


@pytest.mark.parametrize("key", FORMATS)
def test_a_second_export_takes_the_place_of_the_first(net, key, tmp_path):
    needs(key)
    export(net, IMAGES[0], first, [key], tmp_path, "small")
    other = Net().eval()
    (written,) = export(other, IMAGES[0], first, [key], tmp_path, "small")
    assert compare(eager(other, first, 1), open_exported(written.path, 1), IMAGES).holds()
    assert not compare(eager(net, first, 1), open_exported(written.path, 1), IMAGES).holds()


def test_another_net_is_told_apart(net, tmp_path):
    (written,) = export(net, IMAGES[0], first, ["torch_export"], tmp_path, "small")
    found = compare(eager(Net().eval(), first, 1), open_exported(written.path, 1), IMAGES)
    with pytest.raises(InputError, match=r"small\.pt2 does not compute what the net computes: largest relative error"):
        require_equal(found, "small.pt2")


def test_one_format_that_fails_leaves_the_others(net, tmp_path, monkeypatch):
    monkeypatch.setitem(formats_module.FORMATS, "ncnn", formats_module.Format(".ncnn", ("no_such_package",)))
    with pytest.raises(SomeFailed, match=r"ncnn: the package no_such_package is not installed") as told:
        export(net, IMAGES[0], first, ["ncnn", "torchscript"], tmp_path, "small")
    assert told.value.written == [Exported("torchscript", tmp_path / "small.torchscript")]
    assert set(told.value.failed) == {"ncnn"} and "\n" not in str(told.value)


@pytest.mark.parametrize("to", [["onnx", "coreml"], []])
def test_unknown_formats_are_refused_before_anything_is_written(net, to, tmp_path):
    with pytest.raises(InputError, match="use one or more of onnx"):
        export(net, IMAGES[0], first, to, tmp_path / "new", "small")
    assert not (tmp_path / "new").exists()


def test_a_failing_folder_keeps_what_was_there(tmp_path):
    from dcodp.files import replacing_folder

    with replacing_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("first")
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("second")
        raise RuntimeError
    assert (tmp_path / "made" / "a").read_text() == "first" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["small.onnx", "small.bin"])
def test_files_that_cannot_be_opened_are_named(name, tmp_path):
    with pytest.raises(InputError, match=name):
        open_exported(tmp_path / name)


def test_torchs_number_of_threads_is_left_as_it_was(net):
    before = torch.get_num_threads()
    runner = eager(net, first, before + 1)
    assert runner.threads == before + 1
    runner(IMAGES[0].numpy())
    assert torch.get_num_threads() == before


def test_ultralytics_reads_its_own_metadata_in_the_files(tmp_path):
    """The head is in export mode, batch norms are folded, and `names` need not be the net's."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net, image = small_yolo(), torch.rand(1, 3, 64, 64)
    from ultralytics import YOLO

    script, file = export(net, image, first, ["torchscript", "onnx"], tmp_path, "small", names=["cat", "dog"])
    assert not net.model[-1].export and not net.is_fused()
    model = onnx.load(file.path)
    facts = {fact.key: fact.value for fact in model.metadata_props}
    assert facts["names"] == "{0: 'cat', 1: 'dog'}" and facts["imgsz"] == "[64, 64]"
    assert (facts["stride"], facts["task"], facts["head"], facts["end2end"]) == ("8", "detect", "Detect", "False")
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    for written in (script, file):
        assert compare(eager(net, first, 1), open_exported(written.path, 1), [image]).holds()
        found = YOLO(str(written.path), task="detect").predict(image, imgsz=64, verbose=False, device="cpu")
        assert found[0].names == {0: "cat", 1: "dog"} and len(found[0].boxes)


def test_openvinos_folder_has_the_metadata(tmp_path):
    pytest.importorskip("openvino")
    net = small_yolo()
    (written,) = export(net, torch.rand(1, 3, 64, 64), first, ["openvino"], tmp_path, "small")
    assert {path.name for path in written.path.iterdir()} == {"small.xml", "small.bin", "metadata.yaml"}
    assert json.loads((written.path / "metadata.yaml").read_text())["names"] == str(net.names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["yolov8n", "yolo11n", "yolo26n", "yolov8n-seg", "yolo11n-pose", "yolo11n-obb", "yolov8n-cls", "rtdetr-l"]
)
def test_every_task_of_ultralytics_computes_the_same(name, tmp_path):
    pytest.importorskip("onnxruntime")
    from dcodp import _ultralytics
    from dcodp.export.checking import export_checked, head_of, predictions

    _ultralytics.prepare()
    from ultralytics.nn import tasks

    kinds = {"seg": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel", "cls": "ClassificationModel"}
    kind = "RTDETRDetectionModel" if name == "rtdetr-l" else kinds.get(name.partition("-")[2], "DetectionModel")
    net = getattr(tasks, kind)(f"{name}.yaml", verbose=False).eval()
    images = [torch.rand(1, 3, 128, 128)]
    head = head_of(net, tasks.guess_model_task(net), len(net.names), 128)
    result = export_checked(net, images, predictions, ["onnx"], tmp_path, name, head=head, runs=3)
    assert not result.failed, result.failed


@pytest.mark.slow
def test_torchvisions_detectors_take_lists(tmp_path):
    pytest.importorskip("onnxruntime")
    from torchvision.models import detection

    net = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).eval()
    net.score_thresh, net.transform.min_size, net.transform.max_size = 0.0, (128,), 128
    image = torch.rand(1, 3, 128, 128)
    (written,) = export(net, image, lambda r: r, ["onnx"], tmp_path, "small", listed=True)
    found = compare(eager(net, lambda r: r, 1, listed=True), open_exported(written.path, 1), [image])
    assert len(found.relative) == 3 and found.relative[1] < 1e-3  # scores; boxes of equal ones may change places
