"""Checkpoints of ultralytics as people have them: opened without running anything in them, or refused in one line."""

import copy
import importlib
import json
import sys
import types
from pathlib import Path

import made
import pytest
import torch
from made import SIZE, halved, written
from torch import nn

import dcodp
from dcodp import _ultralytics
from dcodp.detectors.checkpoint import read_checkpoint
from dcodp.detectors.ultralytics.opening import HEADER, going_on, open_checkpoint
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors, save_tensors

X = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def network_of(path):
    """The pickled network, by ultralytics itself."""
    _ultralytics.prepare()
    from ultralytics.nn.tasks import load_checkpoint

    return load_checkpoint(path)[0].float().eval()


def saved(path: Path, model, **further) -> Path:
    torch.save({"epoch": -1, "model": model, "ema": None, "train_args": {"imgsz": 64}, **further}, path)
    return path


@torch.no_grad()
def test_the_same_net_as_ultralytics_loads(best):
    opened = open_checkpoint(best)
    assert torch.equal(opened.network(X)[0], network_of(best)(X)[0])
    assert (opened.task, opened.names, opened.image_size) == ("detect", made.NAMES, 64)


@torch.no_grad()
@pytest.mark.parametrize("wrapped", ["DataParallel", "compiled", "ema"])
def test_wrapped_and_averaged_nets(best, tmp_path, wrapped):
    network = network_of(best)
    expected = network(X)[0]
    if wrapped == "DataParallel":
        path = saved(tmp_path / "a.pt", nn.DataParallel(network))
    elif wrapped == "compiled":
        holder = nn.Module()
        holder._modules["_orig_mod"] = network
        path = saved(tmp_path / "a.pt", holder)
    else:
        path = saved(tmp_path / "a.pt", copy.deepcopy(network).apply(zeroed), ema=network.half())
    assert torch.allclose(open_checkpoint(path).network(X)[0], expected, rtol=2e-2, atol=2e-2)


def zeroed(module):
    for parameter in module.parameters():
        parameter.data.zero_()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_state_dicts(tmp_path, prefix):
    torch.save({prefix + "a.weight": torch.ones(2), prefix + "b.bias": torch.zeros(3)}, tmp_path / "a.pth")
    assert list(read_checkpoint(tmp_path / "a.pth").state) == ["a.weight", "b.bias"]


@torch.no_grad()
def test_a_fused_net_stays_fused(best, tmp_path):
    network = network_of(best)
    expected = network(X)[0]
    opened = open_checkpoint(saved(tmp_path / "a.pt", network.fuse(verbose=False)))
    assert opened.network.is_fused()
    assert torch.allclose(opened.network(X)[0], expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_weights_of_other_classes_keep_their_class_branch(tmp_path):
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    network.load(DetectionModel("yolo11n.yaml", nc=80, verbose=False), verbose=False)
    assert network.model[-1].cv3[0][-1].in_channels == 80
    made.settle(network)
    opened = open_checkpoint(saved(tmp_path / "a.pt", network))
    assert torch.equal(opened.network(X)[0], network(X)[0])


def test_what_others_have_pruned_is_said(best, tmp_path):
    network = network_of(best)
    network.model[0].conv.weight = nn.Parameter(network.model[0].conv.weight[:8].clone())
    with pytest.raises(InputError, match=r"pruned or changed by other means: model\.0\.conv\.weight is \[8, 3, 3, 3\]"):
        open_checkpoint(saved(tmp_path / "a.pt", network))


def test_nets_of_yolov5s_repository_are_refused(tmp_path, monkeypatch):
    module = types.ModuleType("models.yolo")
    kind = type("DetectionModel", (nn.Module,), {"__module__": "models.yolo"})
    module.DetectionModel = kind
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    network = kind()
    network.conv = nn.Conv2d(3, 4, 1)
    path = saved(tmp_path / "a.pt", network)
    with pytest.raises(InputError, match=r"YOLOv5's own repository.*train yolov5nu\.pt"):
        open_checkpoint(path)


def test_nets_of_other_images_are_refused(tmp_path):
    _ultralytics.prepare()
    from ultralytics.nn.tasks import DetectionModel

    grey = saved(tmp_path / "grey.pt", DetectionModel("yolov8n.yaml", ch=1, nc=2, verbose=False))
    with pytest.raises(InputError, match="takes images of 1 channels"):
        open_checkpoint(grey)


def test_weights_alone_are_refused(tmp_path):
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="holds weights alone"):
        open_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "harm",
    [
        {"activation": "__import__('pathlib').Path('{mark}').touch()"},
        {"activation": "nn.SiLU() or __import__('pathlib').Path('{mark}').touch()"},
        {"activation": "nn.Conv2d(*[__import__('pathlib').Path('{mark}').touch()])"},
        {"layer": ["torch_safe_load", ["{mark}"]]},
        {"layer": ["contextlib", []]},
        {"layer": ["Path", ["{mark}"]]},
        {"layer": ["nn.functional", []]},
        {"layer": ["nn.init", []]},
    ],
    ids=str,
)
def test_nothing_that_a_description_asks_for_is_run(best, tmp_path, harm):
    mark = tmp_path / "mark"
    network = network_of(best)
    if "activation" in harm:
        network.yaml["activation"] = harm["activation"].format(mark=mark)
    else:
        name, arguments = harm["layer"]
        network.yaml["backbone"].insert(1, [-1, 1, name, [a.format(mark=mark) for a in arguments]])
    with pytest.raises(InputError, match="description asks for"):
        open_checkpoint(saved(tmp_path / "a.pt", network))
    assert not mark.exists()


def damaged(known, how):
    match how:
        case "kind":
            known["description"]["kind"] = "torch_safe_load"
        case "layer":
            known["description"]["yaml"]["backbone"][0][2] = "torch_safe_load"
        case "no plan":
            del known["plan"]
        case "index":
            next(iter(known["plan"]["keep"].values()))["0"] = [10**6]
        case "list":
            return [known]
    return known


@pytest.mark.parametrize("how", ["kind", "layer", "no plan", "index", "list"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_a_small_file_says_of_itself_is_not_trusted(small, tmp_path, how, suffix):
    path = tmp_path / f"small{suffix}"
    if suffix == ".pt":
        network = network_of(small)
        network.dcodp = damaged(copy.deepcopy(network.dcodp), how)
        saved(path, network)
    else:
        tensors, header = load_tensors(small.with_suffix(suffix))
        header[HEADER] = json.dumps(damaged(json.loads(header[HEADER]), how))
        save_tensors(tensors, path, header)
    with pytest.raises(InputError, match=r"description asks for|is damaged|does not read|plan"):
        open_checkpoint(path)


def test_plain_activations_are_taken_and_do_not_stay(best, tmp_path):
    _ultralytics.prepare()
    from ultralytics.nn.modules import Conv

    network = network_of(best)
    network.yaml["activation"] = "nn.LeakyReLU(0.1)"
    opened = open_checkpoint(saved(tmp_path / "a.pt", network))
    assert isinstance(opened.network.model[0].act, nn.LeakyReLU)
    assert isinstance(Conv.default_act, nn.SiLU)


OWN = """
from torch import nn

class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x
"""


@torch.no_grad()
def test_layers_of_ones_own(best, tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    network = network_of(best)
    tree = copy.deepcopy(network.yaml)
    tree["backbone"].append([-1, 1, "Doubled", []])
    for row in tree["head"]:
        row[0] = [k if k < 10 or k == -1 else k + 1 for k in row[0]] if isinstance(row[0], list) else row[0]
    own_layers = importlib.import_module("own_layers")
    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "Doubled", own_layers.Doubled, raising=False)
    network = tasks.DetectionModel(tree, nc=2, verbose=False).eval()
    path = saved(tmp_path / "a.pt", network)
    monkeypatch.delattr(tasks, "Doubled")
    with pytest.raises(InputError, match=r"'Doubled', which is no layer.*--import PACKAGE"):
        open_checkpoint(path)
    with pytest.raises(InputError, match="--import nowhere"):
        open_checkpoint(path, ["nowhere"])
    assert torch.equal(open_checkpoint(path, ["own_layers"]).network(X)[0], network(X)[0])
    monkeypatch.delattr(tasks, "Doubled", raising=False)


@torch.no_grad()
def test_small_files_hold_the_same_net(small):
    one, other = (open_checkpoint(small.with_suffix(suffix)) for suffix in (".pt", ".safetensors"))
    assert one.plan == other.plan
    assert torch.allclose(one.network(X)[0], other.network(X)[0], rtol=2e-2, atol=2e-2)  # one in half precision
    assert torch.equal(one.network(X)[0], network_of(small)(X)[0])


@torch.no_grad()
def test_pruning_again_composes(small, tmp_path, best):
    first = open_checkpoint(small.with_suffix(".safetensors"))
    second = halved(first, seed=1)
    again = open_checkpoint(written(tmp_path, first, second).with_suffix(".safetensors"))
    assert torch.equal(again.network(X)[0], dcodp.prune(first.network, second)(X)[0])
    dense = open_checkpoint(best).network
    assert torch.equal(dcodp.load(dense, tmp_path / "small.safetensors")(X)[0], again.network(X)[0])


def test_who_goes_on_is_told_apart(best, small, tmp_path):
    assert going_on(best) is None
    assert going_on(tmp_path / "nothing.pt") is None
    opened = going_on(small)
    assert opened is not None and opened.plan is not None
