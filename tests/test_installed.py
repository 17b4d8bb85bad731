"""The wheel: what is in it, and that it is enough where nothing else is, from an empty folder."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dcodp.records import load_records

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("src", "conf", "experiments", "pyproject.toml", "setup.py", "README.md", "LICENSE")
README = (ROOT / "README.md").read_text()
FEW = ("dataset.generate_train=4", "dataset.generate_val=4")
PROLOGUE = """
import torch, torchvision
model, dense_architecture = torchvision.models.resnet18().eval(), torchvision.models.resnet18()
images = torch.rand(2, 3, 64, 64)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        source, target = ROOT / name, copy / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run(command, check=True, cwd=out)
    (built,) = out.glob("dcodp-*.whl")
    return built


def test_the_wheel_holds_all_that_runs_need(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    assert "dcodp/py.typed" in held
    modules = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    data = {f"dcodp/{p.relative_to(ROOT).as_posix()}" for n in ("conf", "experiments") for p in (ROOT / n).rglob("*.*")}
    beside = {p for p in (ROOT / "src").rglob("*") if p.suffix in (".yaml", ".html", ".css", ".js")}
    data |= {path.relative_to(ROOT / "src").as_posix() for path in beside}
    assert {"dcodp/conf/config.yaml", "dcodp/conf/model/yolov8n.yaml"} < data
    assert {name for name in held if not name.startswith("dcodp-")} == {"dcodp/py.typed", *modules, *data}


@pytest.fixture
def installed(wheel, tmp_path):
    """Installs the wheel with some extras, and further requirements, into a fresh environment at the locked versions;
    returns what runs a command of it in an empty folder."""
    home, here, versions = tmp_path / "venv", tmp_path / "empty", tmp_path / "versions.txt"
    here.mkdir()
    lock = (ROOT / "requirements.lock").read_text()
    versions.write_text("\n".join(line.rstrip(" \\") for line in lock.splitlines() if "==" in line and line[0] != " "))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def command(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [home / "bin" / words[0], *words[1:]], cwd=here, env=environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def install(extras: str):
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", versions, f"{wheel}{extras}"]
        subprocess.run(pip, check=True, cwd=here)
        return command

    return install


@pytest.mark.slow
def test_with_the_suite_everything_runs_in_an_empty_folder(installed, tmp_path):
    dcodp = installed("[suite]")
    here = tmp_path / "empty"
    told = dcodp("dcodp", "run", "schedule=smoke", "device=cpu")
    assert re.search(r"fine-tuned.*\d", told) and "mAP50-95" in told
    assert (here / "results" / "report.html").is_file()
    assert "removable channels" in dcodp("dcodp", "graph", "yolov8n")
    (here / "results" / "report.html").unlink()
    assert "report.html" in dcodp("dcodp", "report") and (here / "results" / "report.html").is_file()
    assert dcodp("dcodp", "status").startswith("done\t")
    sweep = ("schedule=smoke", "device=cpu", "ratio=0.3,0.4", "launcher=joblib")
    assert "40 %" in dcodp("dcodp", "run", "-m", *sweep)  # in processes that import the job by its name
    assert [record.status for record in load_records(here / "results")] == ["done"] * 3
    assert "every image and annotation is whole" in dcodp("dcodp", "data", "check", "shapes", *FEW)
    assert "importance: chip, dcodp" in dcodp("dcodp", "run", "--help")


@pytest.mark.slow
def test_with_the_core_alone_the_example_of_the_readme_runs(installed, tmp_path):
    core = installed("")
    text = README.partition("## Prune your own model in Python")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert "dcodp.repair(" in example and "dcodp.load(" in example
    (tmp_path / "empty" / "example.py").write_text("\n".join([PROLOGUE, example, "print(graph.explain())"]))
    assert "removable channels" in core("python", "example.py")
    assert "typer is not installed here; use pip install dcodp[suite]" in core("dcodp", "run", status=2)
    absent = (
        "from importlib.util import find_spec; print(*filter(find_spec, 'wandb lightning hydra ultralytics'.split()))"
    )
    assert core("python", "-c", absent) == "\n"
