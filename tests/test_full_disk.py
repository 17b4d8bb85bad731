"""A disk that fills while a file is written: one line that names the file, the old file as it was, nothing beside."""

import errno
import io
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dcodp import trace
from dcodp.errors import InputError
from dcodp.evaluation.measuring import load_predictions, save_predictions
from dcodp.files import refused, replacing, replacing_folder, write_atomically, writing
from dcodp.files.tensors import load_tensors, save_tensors
from dcodp.graph.view import draw
from dcodp.graph.view.patterns import Pattern
from dcodp.pipeline import running
from dcodp.training.files import load_last, save_last

ROOMS = (0, 10, 100_000, 199_000)  # bytes; before, in and after what is large, which goes past the buffer


@pytest.fixture
def disk(monkeypatch):
    """A function that leaves room for so many bytes more."""
    left = [float("inf")]

    class Disk(io.FileIO):
        def write(self, content):
            left[0] -= len(content)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    class Raw(writing._Raw, Disk):
        pass

    monkeypatch.setattr(writing, "_Raw", Raw)
    return lambda room: left.__setitem__(0, room)


def checkpoint(path, number):
    save_last(path.parent, {"weights": torch.full((50_000,), float(number)), "epoch": number})


def epoch(folder):
    last = load_last(folder)
    assert last is not None
    return last["epoch"]


def tensors(path, number):
    save_tensors({"weights": torch.full((50_000,), float(number))}, path)


def predictions(path, number):
    random = np.random.default_rng(number)
    boxes, scores = random.random((12_000, 4), np.float32), random.random(12_000, np.float32)
    save_predictions(path, {"a": (boxes, scores, np.arange(12_000))})


def text(path, number):
    write_atomically(path, json.dumps([number] * 100_000))


def rendered(path, number):
    """Who writes in small pieces, as savefig does."""
    with replacing(path) as stream:
        for _ in range(100_000):
            stream.write(b"%d " % number)


WRITERS = {
    "last.ckpt": (checkpoint, lambda path: epoch(path.parent)),
    "best.safetensors": (tensors, lambda path: load_tensors(path)[0]["weights"][0]),
    "predictions.npz": (predictions, lambda path: load_predictions(path)["a"][1][0]),
    "record.json": (text, lambda path: json.loads(path.read_text())[0]),
    "figure.pdf": (rendered, lambda path: path.read_text()[0]),
}


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("name", WRITERS)
def test_one_line_and_the_old_file(name, room, tmp_path, disk):
    write, read = WRITERS[name]
    write(tmp_path / name, 1)
    before, size = read(tmp_path / name), (tmp_path / name).stat().st_size
    assert size > max(ROOMS)
    disk(room)
    with pytest.raises(InputError, match=rf"^the disk is full: .*{name} was not written .*; free space and run again$"):
        write(tmp_path / name, 2)
    assert read(tmp_path / name) == before and [path.name for path in tmp_path.iterdir()] == [name]
    disk(float("inf"))
    write(tmp_path / name, 2)
    assert read(tmp_path / name) != before


def test_a_refusal_that_a_library_keeps_to_itself(tmp_path, disk):
    disk(0)
    with pytest.raises(InputError, match="the disk is full"), replacing(tmp_path / "a") as stream:
        with pytest.raises(OSError, match="No space"):
            stream.write(b"1" * 1_000_000)
        disk(float("inf"))  # all that follows is taken
    assert not list(tmp_path.iterdir())


def test_a_picture_of_a_graph(tmp_path, disk, monkeypatch):
    disk(10)
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 1)), (torch.rand(1, 3, 8, 8),))
    monkeypatch.setattr(draw, "find_patterns", lambda _: [Pattern("residual", "Residual", ("0",))])
    with pytest.raises(InputError, match=r"the disk is full: .*residual\.svg"):
        draw.draw_patterns(graph, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_errors_keep_their_own_words(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as stream:
        stream.write(b"%d" % (1 // 0))


def test_a_library_that_fails_in_its_own_words_in_a_folder(tmp_path, monkeypatch):
    """OpenVINO says "basic_ios::clear: iostream error"."""
    monkeypatch.setattr(refused.os, "fsync", full)
    line, path = r"^the disk is full: .*net_openvino_model", tmp_path / "net_openvino_model"
    with pytest.raises(InputError, match=line), replacing_folder(path):
        raise RuntimeError("basic_ios::clear: iostream error")
    assert not list(tmp_path.iterdir())


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CELL = """
import resource, signal, sys
import torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from dcodp.cli import main
from dcodp.training import files
import dcodp.commands.status, pathlib
def status(results: pathlib.Path):
    files.save_last(results, {"weights": torch.ones(50_000), "epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    files.save_last(results, {"weights": torch.ones(50_000), "epoch": 2})
dcodp.commands.status.status = status
main(["status", sys.argv[1]])
"""


def test_a_command_ends_with_the_line_and_status_2(tmp_path):
    """What the kernel itself refuses (a limit on the size of files) while torch writes."""
    done = subprocess.run([sys.executable, "-c", CELL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.count("\n") == 1 and f"dcodp: cannot write {tmp_path / 'last.ckpt'} (File too large)" in done.stderr
    )
    assert epoch(tmp_path) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_log_that_cannot_be_written_stops_nothing_and_says_nothing(tmp_path, capsys, monkeypatch):
    with running._logged_to(tmp_path / "log.txt"):
        (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, running._Log)]
        monkeypatch.setattr(handler, "flush", lambda: full(None))
        logging.getLogger("dcodp").info("a line")
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("kilobytes", [200, 1300, 2000])
def test_a_small_disk(tmp_path, kilobytes):
    """Of the kernel's own: tensors, and OpenVINO, which writes by itself."""
    from dcodp.export.formats import SomeFailed, export

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(tmp_path)], check=True)
    try:
        with pytest.raises(InputError, match=r"the disk is full: .*last\.ckpt"):
            save_last(tmp_path, {"weights": torch.ones(600_000)})
        net = nn.Sequential(nn.Conv2d(3, 200, 3), nn.Conv2d(200, 144, 3)).eval()
        with pytest.raises(SomeFailed, match=r"openvino: the disk is full: .*net_openvino_model"):
            export(net, torch.rand(1, 3, 16, 16), lambda found: found, ["openvino"], tmp_path, "net")
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
