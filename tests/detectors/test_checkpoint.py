import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dcodp.detectors.checkpoint import read_checkpoint, read_state_dict
from dcodp.errors import InputError
from dcodp.files.loading import load_strictly


class Network(nn.Module):
    """A class that only this test knows, pickled whole as official checkpoints do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.scale = nn.Parameter(torch.rand(4))
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("transient", torch.zeros(1), persistent=False)
        self.names = {1: "dog", 0: "cat"}
        self.stride = torch.tensor([8.0])


def same(state, expected):
    return list(state) == list(expected) and all(torch.equal(state[k], expected[k]) for k in state)


def write(path, graph: bytes, storages=(), compression=zipfile.ZIP_STORED):
    """A checkpoint archive with this object graph."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", graph)
        for key, data in dict(storages).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def test_model_object_becomes_its_state_dict(tmp_path):
    network = Network()
    torch.save({"model": network, "epoch": 3, "optimizer": None}, tmp_path / "net.pt")
    checkpoint = read_checkpoint(tmp_path / "net.pt")
    assert same(checkpoint.state, network.state_dict()) and checkpoint.names == ("cat", "dog")


def test_averaged_model_is_preferred_and_half_becomes_float(tmp_path):
    ema, network = Network().half(), Network()
    widened = {k: v.float() if v.is_floating_point() else v for k, v in ema.state_dict().items()}
    torch.save({"model": network, "ema": ema}, tmp_path / "both.pt")
    torch.save({"model": network, "ema": None}, tmp_path / "one.pt")
    assert same(read_state_dict(tmp_path / "both.pt"), widened)
    assert same(read_state_dict(tmp_path / "one.pt"), network.state_dict())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 1}])
def test_state_dicts_as_they_come(tmp_path, wrap):
    state = Network().state_dict()
    torch.save(wrap(state), tmp_path / "state.pth")
    assert same(read_state_dict(tmp_path / "state.pth"), state)


def test_views_of_one_storage_and_safetensors(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {"t": base.t(), "row": base[1], "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.5)}
    torch.save(state, tmp_path / "views.pt")
    read = read_state_dict(tmp_path / "views.pt")
    assert same(read, state) and read["t"].is_contiguous()
    save_file({"row": base[1].bfloat16()}, tmp_path / "one.safetensors")
    assert same(read_state_dict(tmp_path / "one.safetensors"), {"row": base[1]})


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), r"(posix|nt)\.system"),
        (subprocess.Popen, ("touch {}",), r"(subprocess|commands)\.Popen"),
        (eval, ("open('{}', 'w')",), r"(__builtin__|builtins)\.eval"),
        (getattr, ("text", "upper"), r"(__builtin__|builtins)\.getattr"),
        (torch.hub.load, ("repository", "model"), r"torch\.hub\.load"),
        (pickle.loads, (b"\x80\x02}.",), r"_?pickle\.loads"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_something_is_refused_by_name(tmp_path, function, args, name, protocol):
    trace = tmp_path / "trace"
    args = tuple(a.format(trace) if isinstance(a, str) else a for a in args)
    graph = pickle.dumps({"model": OrderedDict(), "extra": [Call(function, *args)]}, protocol)
    with pytest.raises(InputError, match=rf"evil\.pt asks to (call|use) {name}; it was not run"):
        read_state_dict(write(tmp_path / "evil.pt", graph))
    assert not trace.exists()


@pytest.mark.parametrize(
    "graph",
    [
        b"(ios\nsystem\n.",  # INST without arguments
        b"(cos\nsystem\nX\x04\x00\x00\x00trueo.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",  # REDUCE
        b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
    ],
)
def test_every_way_of_calling_is_refused(tmp_path, graph):
    with pytest.raises(InputError, match=r"asks to (call|use) (os\.system|__builtin__\.eval)"):
        read_state_dict(write(tmp_path / "evil.pt", graph))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (b"\x80\x02\x82\x01.", "extension registry"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo number out of range"),
        (b"\x80\x02cos\nsystem\n}X\x01\x00\x00\x00ai\x01b.", "cannot be read"),  # BUILD on a class
        (b"\x80\x02ccollections\nOrderedDict\n}X\x05\x00\x00\x00clear]sb.", "cannot be read"),
        (b"\x80\x02}q\x00.", "holds no weights"),
        (b"\x80\x02]q\x00h\x00a.", "holds no weights"),  # a list that holds itself
        (b"\x80\x02}", "cannot be read"),
    ],
)
def test_crafted_graphs_are_one_clear_line(tmp_path, graph, message):
    with pytest.raises(InputError, match=message) as error:
        read_state_dict(write(tmp_path / "odd.pt", graph))
    assert "\n" not in str(error.value)


def test_modules_that_contain_themselves_are_refused(tmp_path):
    loop, wide = nn.Module(), nn.Module()
    loop._modules["self"] = loop
    torch.save({"model": loop}, tmp_path / "loop.pt")
    with pytest.raises(InputError, match="deep"):
        read_state_dict(tmp_path / "loop.pt")
    for _ in range(30):  # 2^30 paths to one module
        outer = nn.Module()
        outer._modules.update(a=wide, b=wide)
        wide = outer
    torch.save({"model": wide}, tmp_path / "wide.pt")
    with pytest.raises(InputError, match="more than 100000 tensors"):
        read_state_dict(tmp_path / "wide.pt")


def rewritten(source, target, change):
    """A copy of a zip file with `change(name, data)` applied to its entries (None drops one)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return target


def test_damaged_archives_are_one_clear_line(tmp_path):
    good = tmp_path / "good.pt"
    torch.save({"weight": torch.rand(100)}, good)
    cut, short, gone, turned, packed = (tmp_path / f"{n}.pt" for n in ("cut", "short", "gone", "turned", "packed"))
    cut.write_bytes(good.read_bytes()[:-300])
    rewritten(good, short, lambda n, d: d[:-4] if n.endswith("data/0") else d)
    rewritten(good, gone, lambda n, d: None if n.endswith("data/0") else d)
    rewritten(good, turned, lambda n, d: b"big" if n.endswith("byteorder") else d)
    write(packed, pickle.dumps({}, 2), compression=zipfile.ZIP_DEFLATED)
    flipped = bytearray(good.read_bytes())
    flipped[flipped.index(torch.load(good, weights_only=True)["weight"].numpy().tobytes()) + 8] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    for path, message in [
        (cut, "cut short"),
        (short, "396 of 400 bytes"),
        (gone, "lacks the data of storage 0"),
        (turned, "big-endian"),
        (packed, "compressed"),
        (tmp_path / "flipped.pt", "damaged"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            read_state_dict(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save({"weight": torch.rand(1).expand(10**9)}, tmp_path / "bomb.pt")
    with pytest.raises(InputError, match="describes weight as larger than its data"):
        read_state_dict(tmp_path / "bomb.pt")


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_state_dict(tmp_path / "none.pt")
    for name, data, message in [
        ("photo.pt", b"\xff\xd8\xff\xe0 JFIF", "is not a checkpoint"),
        ("empty.pt", b"", "is not a checkpoint"),
        ("photo.safetensors", b"\xff\xd8\xff\xe0 JFIF", "is not a readable safetensors file"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_state_dict(tmp_path / name)
    torch.save({"w": torch.zeros(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before version 1\.6"):
        read_state_dict(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(InputError, match="no torch checkpoint"):
        read_state_dict(tmp_path / "zip.pt")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(InputError, match="TorchScript"):
        read_state_dict(tmp_path / "script.pt")


def test_strict_loading_names_the_first_differences():
    network, other = nn.Linear(2, 3), {"weight": torch.zeros(4, 2), "gain": torch.zeros(1)}
    with pytest.raises(
        InputError, match=r"^file is of another architecture: bias is missing; gain is unexpected; weight has"
    ):
        load_strictly(network, other, "file")
    load_strictly(network, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "file")
    assert float(network.weight.detach().sum()) == 6


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["yolov7_coco_state_dict_fp16.pt", "resnet50_imagenet_stride1x1_fp16.pth"])
def test_real_state_dicts_agree_with_torch(weights, name):
    path = weights(name)
    expected = torch.load(path, weights_only=True)
    assert same(read_state_dict(path), {k: v.float() if v.is_floating_point() else v for k, v in expected.items()})
