"""Every command of README.md and docs/ runs: typed line by line in a copy of the checkout, on real images and with real
weights, its sizes made so small that nothing is measured. What has no end of its own here is named in ELSEWHERE."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from documented import IDS, PAGES, ROOT, blocks, lines

from dcodp.config import ModelConfig
from dcodp.detectors import build

sys.path.append(str(ROOT / "tests/yolo"))
import made

pytestmark = [pytest.mark.slow, pytest.mark.realdata]

ELSEWHERE = {
    "pip install '.[suite,export]'": "tests/test_installed.py, and the wheel's whole way in benchmarks/whole_way.py",
    "make demo": "its recipe is a sweep of run.py, as other lines are",
    "make test": "it would start this test",
    "make docs": "tests/report/test_site.py",
    "dcodp data fetch voc2007 --data data": "tests/data/test_fetch.py, without a network",
    "dcodp data fetch bccd --data data": "the same",
    "yolo detect train model=yolov8n.pt data=data/bccd/data.yaml imgsz=320 epochs=12": "ultralytics' own, its weights",
    ".venv/bin/pip install pre-commit": "a network",
    ".venv/bin/pre-commit install": "a network",
    ".venv/bin/pytest tests/test_floors.py::test_no_room_imports_one_above_it": "a test",
    ".venv/bin/pytest tests/importance -q": "tests",
    ".venv/bin/pytest -m slow tests/test_installed.py": "a test",
}
CLUSTERS = ("launcher=slurm", "launcher=ray")  # tests/workers/test_launchers.py starts them
TYPED = [line for line in lines() if line not in ELSEWHERE and not any(word in line for word in CLUSTERS)]

RUN = {
    "image_size": 64, "importance.images": 8, "importance.batch": 4, "dataset.train_limit": 16, "dataset.val_limit": 8,
    "dataset.generate_train": 16, "dataset.generate_val": 8, "evaluation.latency_runs": 1, "evaluation.pictures": 1,
    "train.epochs": 1, "train.batch": 8, "train.warmup_epochs": 0, "train.close_mosaic": 0, "finetune.batch": 8,
    "finetune.warmup_epochs": 0, "finetune.close_mosaic": 0, "train.amp_on_cpu": "false",
    "finetune.amp_on_cpu": "false", "device": "cpu", "threads": 1, "wandb.mode": "disabled",
}  # fmt: skip
WHOLE = ("method", "importance")
PRUNE = {"--epochs": "1", "--imgsz": "64", "--batch": "4"}
EXPORT = {"--imgsz": "64", "--runs": "2"}
BENCHMARKS = {
    "calibration": "--sizes 2 --sets 2 --image-size 64 --batch 2 --criteria dcodp hrank",
    "importance": "--images 2 --batch 2 --size 64 --repeats 1",
}
NAMES = {
    "PATH.yaml": "own.yaml",
    "package.module:callable": "torchvision.models:resnet18",
    "--model faster_rcnn": "--model faster_rcnn_tiny_test",
    "latency:0.5": "latency:0.95",  # at so few pixels layers are the smaller part of the time
}
MADE_BY = {  # what a line needs that another one writes
    "small/small": "dcodp prune best.pt --data data.yaml --target flops:0.5 --out small",
    "--results small": "dcodp prune best.pt --data data.yaml --target flops:0.5 --out small",
    "exported/": "dcodp export small/small.safetensors --to onnx,openvino --out exported",
    "dcodp status": "python run.py ratio=0.5",
    "dcodp report": "python run.py ratio=0.5",
    "keep.py": "python run.py ratio=0.5",
    "RUN_ID": "python run.py ratio=0.5",
    "device.json": "python table.py",
}
NET = """
import dcodp, torch, torchvision
model, dense_architecture = torchvision.models.resnet18().eval(), torchvision.models.resnet18()
images = torch.rand(2, 3, 64, 64)
batches = [images]
plan = dcodp.select(graph := dcodp.trace(model, (images,)), dcodp.score(model, graph, "l1", batches), ratio=0.5)
small = dcodp.prune(model, plan)
"""
NET_OF_A_YOLO = """
from pathlib import Path
import torch
from dcodp.detectors.ultralytics.adapter import UltralyticsNet
from dcodp.detectors.ultralytics.opening import open_checkpoint
model, images = open_checkpoint(Path("best.pt")).network, torch.rand(1, 3, 64, 64)
graph = UltralyticsNet("net", model, ("a", "b")).coupling_graph(64)
scores = {group.name: torch.rand(group.channels) for group in graph.groups}
outputs = lambda result: result[0]
"""
TABLE = f"""{NET_OF_A_YOLO}
from dcodp.export import Machine, latency_cost
latency_cost(model, graph, images, outputs, Machine("onnxruntime", 2), Path("device.json"))
"""


class Desk:
    """A copy of the checkout with the files that the pages speak of, where lines are typed one after the other."""

    def __init__(self, folder: Path, data: Path):
        self.folder, self.data, self.done = folder, data, {}
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        made.checkpoint(folder / "best.pt", "yolov8n")
        made.data(folder / "own", "detect")
        text = (folder / "own/data.yaml").read_text()
        (folder / "data.yaml").write_text(text + f"path: {folder / 'own'}\ntest: images/val\n")
        shutil.copytree(folder / "own/images/val", folder / "photos")
        shutil.copy(folder / "photos/0.png", folder / "image.jpg")
        detector, _ = build(ModelConfig("faster_rcnn", "faster_rcnn", "tiny_test"), tuple(made.NAMES.values()))
        torch.save(detector.network.state_dict(), folder / "weights.pth")
        (folder / "table.py").write_text(TABLE)
        self.of_others()

    def of_others(self) -> None:
        """Weights, data and an architecture that were not made here."""
        from ultralytics import cfg

        shutil.copy(Path(cfg.__file__).parent / "models/11/yolo11.yaml", self.folder / "own.yaml")
        weights = {"yolov8n.pt": "yolov8n.pt", "yolov7.pt": "yolov7_coco_state_dict_fp16.pt"}
        (self.folder / "WEIGHTS").mkdir()
        for name, kept in weights.items():
            for place in (self.folder, self.folder / "WEIGHTS"):
                (place / name).symlink_to(self.data / "weights" / kept)
        (self.folder / "data").symlink_to(self.data)

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(self.folder / "src"), "OMP_NUM_THREADS": "1"}

    def needed(self, text: str) -> None:
        for word, line in MADE_BY.items():
            if word in text and line != text:
                self.typed(line)

    def typed(self, line: str) -> subprocess.CompletedProcess[str]:
        if line not in self.done:
            self.needed(line)
            self.done[line] = self.run(small(line, self.data))
        return self.done[line]

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=1200, check=False
        )


@pytest.fixture(scope="session")
def desk(tmp_path_factory, realdata, weights) -> Iterator[Desk]:
    for name in ("yolov8n.pt", "yolov7_coco_state_dict_fp16.pt"):
        weights(name)
    yield Desk(tmp_path_factory.mktemp("desk"), realdata)


# --- the same line, small ---


def small(line: str, data: Path) -> list[str]:
    """The words of a line, with what is there for what the page names, and sizes that take seconds."""
    place = data / "voc2007-256" if "experiment=voc_resplit" in line else data
    line = re.sub(r"\bDIR\b", str(place), line)
    for name, here in NAMES.items():
        line = line.replace(name, here)
    words = shlex.split(line)
    if words[:2] == ["python", "run.py"] or words[:2] == ["dcodp", "run"]:
        return [*words[:2], *run_words(words[2:])]
    if words[:2] == ["dcodp", "prune"]:
        return with_options(words, PRUNE)
    if words[:2] == ["dcodp", "export"]:
        return with_options(words, EXPORT)
    if words[0] == "make":  # in the environment that is there, of which no file says that it is ready
        return [*words, "READY=", f"BIN={Path(sys.executable).parent}"]
    if "benchmarks/" in line:  # the last of two equal options counts
        return [*words, *BENCHMARKS[Path(words[1]).stem].split(), "--out", "measured"]
    return words


def with_options(words: list[str], options: dict[str, str]) -> list[str]:
    return [*words, *(word for name, value in options.items() if name not in words for word in (name, value))]


def run_words(words: list[str]) -> list[str]:
    """Long lists keep their ends; an experiment keeps its methods and criteria, and of all else the first value."""
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    swept = of_experiment(pairs["experiment"]) if "experiment" in pairs else {}
    given = {**swept, **pairs, **{key: str(RUN[key]) for key in RUN if pairs.get(key) != "0"}}
    epochs = max(int(steps) for steps in given.get("steps", "1").split(","))
    given["finetune.epochs"] = "0" if pairs.get("finetune.epochs") == "0" else str(epochs)
    given = {key: value if key in WHOLE else few(value) for key, value in given.items()}
    return [word for word in words if "=" not in word] + [f"{key}={value}" for key, value in given.items()]


def few(value: str) -> str:
    values = value.split(",")
    return value if len(values) < 3 else f"{values[0]},{values[-1]}"


def of_experiment(name: str) -> dict[str, str]:
    """What the experiment, or the one that it builds on, sweeps over."""
    content = yaml.safe_load((ROOT / f"conf/experiment/{name}.yaml").read_text())
    below = [entry for entry in content.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    swept = {key: value for entry in below for key, value in of_experiment(entry).items()}
    own = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    swept |= {key: str(value) for key, value in own.items()}
    return {key: value if key in (*WHOLE, "model") else value.split(",")[0] for key, value in swept.items()}


# --- typed ---


@pytest.mark.parametrize("line", TYPED, ids=[line[:100] for line in TYPED])
def test_it_runs(line, desk):
    done = desk.typed(line)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout[-1500:] + done.stderr[-3000:]


SHOWN = [(name, code) for page, name in zip(PAGES, IDS, strict=True) for code in blocks(page.read_text(), "python")]
SHOWN = [(name, code) for name, code in SHOWN if not code.startswith('"""')]  # files of one's own: tests/test_docs.py


@pytest.mark.parametrize(("page", "code"), SHOWN, ids=[page for page, _ in SHOWN])
def test_python_runs(page, code, desk):
    desk.needed(code)
    runs = sorted(path.name for path in (desk.folder / "results/runs").glob("*") if "RUN_ID" in code)
    given = f"RUN_ID = {runs[0]!r}\n" if runs else ""
    before = NET_OF_A_YOLO if "latency_cost" in code else NET
    changed = {"epochs=50": "epochs=1, imgsz=64", "lambda result: result ": "lambda result: result[0] "}
    for said, here in changed.items():
        code = code.replace(said, here)
    done = desk.run([sys.executable, "-c", "\n".join([given, before if "dcodp." in code else "", code])])
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


def test_lines_that_run_elsewhere_are_shown():
    assert set(ELSEWHERE) <= set(lines())


def test_a_line_that_fails_is_seen(desk):
    assert desk.run(small("dcodp prune none.pt --data data.yaml", desk.data)).returncode
