"""The architectures of benchmarks/zoo prune exactly, and the benchmark's table says what was measured."""

import json
import math
import os
import re
import sys
import time
from pathlib import Path

import architectures as benchmark
import pytest
import ultralytics
import zoo
from documents.architectures import reasons
from zoo.apart import apart

FAST = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "yolov5n", "yolov10n",
        "fasterrcnn_mobilenet_v3_large_fpn, frozen batch norm")  # fmt: skip


def row(name, size=None, **changes):
    return {"size": size, "ours": {"failure": None, **zoo.check(name, size)}, "peer": PEER} | changes


PEER = {"seconds": None, "removed": None, "problem": "not installed"}


@pytest.mark.parametrize("name", FAST)
def test_pruned_exactly(name):
    assert benchmark.shortcomings(name, row(name, 64)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, net in zoo.ARCHITECTURES.items() if not net.missing])
def test_every_architecture_is_pruned_exactly(name):
    assert benchmark.shortcomings(name, row(name)) == []


def test_at_least_a_hundred_and_fifty_architectures():
    nets = zoo.ARCHITECTURES.values()
    assert len(nets) >= 150 and len({net.name for net in nets}) == len(nets)
    assert sum(net.convolutional_detector for net in nets) >= 40 and sum(net.family == "timm" for net in nets) >= 60
    assert all(zoo.ARCHITECTURES[name].must_remove == 0.7 for name in ("convnext_tiny", "swin_t", "yolov8n"))


def test_every_yaml_file_of_ultralytics_is_there():
    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    files = {path.stem for path in folder.glob("*/*.yaml")} - {"yolo11-cls-resnet18"}  # which downloads its weights
    scaled = re.compile(r"^(yoloe?-?v?[0-9]+)n(?=$|-)")
    assert files <= {scaled.sub(r"\1", name) for name in zoo.ARCHITECTURES} | {"yolov9t", "yolov10n"}


def test_nets_of_packages_that_are_not_installed_are_passed_over(measured, monkeypatch):
    run, asked, _ = measured
    monkeypatch.setattr(zoo.entry.importlib.util, "find_spec", lambda name: name == "torch" or None)
    assert run("--only", "timm resnet18", "resnet18") == 0 and asked == ["resnet18"]
    assert run("--only", "timm resnet18") == 0


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: time.sleep(60), "no result after 0.5 s"),
        (lambda: os._exit(3), "the process ended with status 3"),
        (lambda: {}[1], "KeyError: 1"),
    ],
)
def test_no_net_can_hang_or_end_the_run(work, told):
    assert apart(work, (), 0.5)["failure"] == told


def test_reasons_are_counted_without_their_places():
    frozen = [{"channels": n, "reason": r} for n, r in ((3, "an output (a)"), (4, "an output (b)"), (2, "x"), (1, "y"))]
    assert reasons(frozen) == "7: an output; 2: x; …"


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The benchmark with made-up measurements; returns how to run it and which nets were measured."""
    asked = []

    def ours(name, size):
        asked.append(name)
        values = {"parameters_removed": 0.74, "error": 1e-15, "rounding": 1e-15, "changes": math.inf, "swapped": 0.1}
        frozen = [{"layer": "head", "channels": 3, "reason": "an output"}]
        return {"failure": None, "parameters": 10**6, "trace_seconds": 0.2, "groups": 3, "channels": 30,
                "frozen": frozen, "ratios": {str(r): values for r in zoo.RATIOS}}  # fmt: skip

    monkeypatch.setattr(benchmark, "ours", ours)
    monkeypatch.setattr(benchmark, "peer", lambda name, size: PEER)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["architectures.py", "--out", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as stopped:
            benchmark.main()
        return stopped.value.code

    return run, asked, tmp_path


def test_a_run_goes_on_where_it_stopped(measured, monkeypatch):
    run, asked, folder = measured
    assert run("--only", "resnet18") == 0 and run("--only", "resnet18", "yolov8n") == 0
    assert asked == ["resnet18", "yolov8n"]
    assert run("--only", "yolov8n", "--size", "64") == 0 and run("--only", "resnet18", "--again") == 0
    assert asked[2:] == ["yolov8n", "resnet18"]
    monkeypatch.setattr(benchmark, "code_digest", lambda name: "other code")
    run("--only", "resnet18")
    assert asked[4:] == ["resnet18"]
    tree = json.loads((folder / "architectures.json").read_text())
    assert tree["architectures"]["resnet18"]["ours"]["ratios"]["0.5"]["changes"] == "other shapes"
    assert {"hardware", "libraries", "code", "threads"} <= set(tree["provenance"])


def test_the_table_shows_both_sides(measured, monkeypatch):
    run, _, folder = measured
    monkeypatch.setattr(benchmark, "peer", lambda name, size: {"seconds": 1.5, "removed": 0.5, "problem": None})
    run("--only", "resnet18")
    text = (folder / "architectures.md").read_text()
    assert "| resnet18 | 128 | 1.0 |" in text and "50.0% removed in 1.5 s" in text and "74.0%" in text
    assert (folder / "architectures.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"error": 1e-9}, "error 1.0e-09"),
        ({"error": 1e-9, "rounding": 1e-11}, "error 1.0e-09"),
        ({"swapped": 1e-9}, "sees too little"),
        ({"swapped": 1e-5, "rounding": 1e-6}, "sees too little"),
        ({"parameters_removed": 0.5}, "only 50%"),
    ],
)
def test_what_does_not_hold_is_named_and_ends_with_status_1(measured, monkeypatch, change, told):
    run, _, _ = measured
    before = benchmark.ours

    def worse(name, size):
        found = before(name, size)
        return found | {"ratios": {k: v | change for k, v in found["ratios"].items()}}

    monkeypatch.setattr(benchmark, "ours", worse)
    assert run("--only", "yolov8n") == 1
    row = {"ours": worse("yolov8n", 64), "peer": PEER, "size": 64}
    assert told in benchmark.shortcomings("yolov8n", row)[0]


def test_an_error_may_be_what_rounding_does_to_the_net(measured, monkeypatch):
    run, _, folder = measured
    before = benchmark.ours

    def deep(name, size):
        found = before(name, size)
        return found | {"ratios": {k: v | {"error": 2e-9, "rounding": 1e-9} for k, v in found["ratios"].items()}}

    monkeypatch.setattr(benchmark, "ours", deep)
    assert run("--only", "yolov8n") == 0
    assert "2.0e-09 in all (where rounding alone does 1.0e-09)" in (folder / "architectures.md").read_text()


def test_a_failure_is_shown(monkeypatch):
    def broken(name, size):
        raise RuntimeError("no such net")

    monkeypatch.setattr(benchmark, "check", broken)
    row = {"ours": benchmark.ours("resnet18", 64), "peer": PEER, "size": 64}
    assert benchmark.shortcomings("resnet18", row) == ["resnet18: RuntimeError: no such net"]
    assert benchmark.cells("resnet18", row)[-1] == "not installed"


def test_without_the_peer_its_column_says_so(monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    assert benchmark.peer("resnet18", 64)["problem"] == "not installed"
