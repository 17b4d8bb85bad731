"""What installs the project agrees with what it says it needs."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import dcodp.extras
from dcodp.errors import InputError
from dcodp.extras import BROUGHT_BY, told_if_missing
from dcodp.resources import folder

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
BRINGS = packages_distributions()  # import name → distributions
CODE = [*(path for part in ("src", "benchmarks", "tests") for path in (ROOT / part).rglob("*.py")), *ROOT.glob("*.py")]


def pinned():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {m[1].lower(): m[2] for line in lines if (m := re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line))}


def name_of(requirement):
    return normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0])


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(module):
    """Those that bring a module; its own name where none of them is installed here."""
    return {normal(name) for name in BRINGS.get(module, [module])}


def imports(path):
    """The first word of everything that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_every_dependency_is_pinned_with_hashes_and_without_addresses():
    extras = [r for key in ("suite", "dev", "export") for r in EXTRAS[key]]
    assert {name_of(r) for r in [*PROJECT["dependencies"], *extras]} <= set(pinned())
    text = (ROOT / "requirements.lock").read_text()
    assert "http" not in re.sub(r"^\S*http\S*==.*$", "", text, flags=re.M) and text.count("--hash=sha256:") > 100


def test_everything_imported_is_declared():
    declared = {name_of(r) for r in [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]}
    others = [path for path in CODE if "src" not in path.relative_to(ROOT).parts]
    ours = {"dcodp", *(path.stem for path in others), *(path.parent.name for path in others)}
    foreign = {name for path in CODE for name in imports(path)} - set(sys.stdlib_module_names) - ours
    assert foreign >= {"torch", "yaml", "cv2"}
    assert {name for name in foreign if not distributions(name) & declared} == set()


@pytest.mark.parametrize("extra", BROUGHT_BY)
def test_the_extras_are_known_by_what_they_bring(extra):
    brought = {name for module in BROUGHT_BY[extra] for name in distributions(module)}
    others = {name_of(r) for key, requirements in EXTRAS.items() if key != extra for r in requirements}
    assert brought - others == {name_of(r) for r in EXTRAS[extra]}


def test_ultralytics_is_pinned_exactly():
    assert f"ultralytics=={pinned()['ultralytics']}" in EXTRAS["suite"]


def test_the_conda_environment_is_thin_and_agrees():
    text = (ROOT / "environment.yml").read_text()
    entries = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    assert entries == ["conda-forge", f"python{PROJECT['requires-python']}", "pip", "pip:", "-r requirements.lock"]


@pytest.mark.parametrize("word", ["torch.load(", "pickle.load"])
def test_no_pickle_is_loaded(word):
    for path in (ROOT / "src").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert word not in line or "weights_only=True" in line, f"{path}: {line}"


CORE_ALONE = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # as if it were not installed
import torch
import dcodp
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
images = torch.rand(2, 3, 12, 12)
graph = dcodp.trace(model, (images,))
plan = dcodp.select(graph, dcodp.score(model, graph, "dcodp", [images]), ratio=0.5)
small = dcodp.prune(model, plan)
dcodp.testing.assert_equivalent(model, small, plan, (images,))
dcodp.save(small, plan, "small.safetensors")
assert torch.equal(dcodp.load(model, "small.safetensors")(images), small(images))
print(graph.explain())
try:
    dcodp.evaluation
except dcodp.InputError as error:
    print(error)
from dcodp.cli import main
main(["status"])
"""


def test_the_core_works_without_what_the_extras_bring(tmp_path):
    absent = [module for modules in BROUGHT_BY.values() for module in modules]
    done = subprocess.run([sys.executable, "-c", CORE_ALONE, *absent], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "1 groups, 8 removable channels" in done.stdout
    assert re.search(r"^\w+ is not installed here; use pip install dcodp\[suite\]$", done.stdout, re.M)
    assert done.stderr == "dcodp: typer is not installed here; use pip install dcodp[suite]\n"


def test_only_what_an_extra_brings_is_told_so():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), told_if_missing():
        import_module("no_such_module")
    with pytest.raises(InputError, match=r"pip install dcodp\[export\]"), told_if_missing():
        raise ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper")


@pytest.mark.parametrize("name", ["conf", "experiments"])
def test_resources_are_those_of_dcodp_wherever_one_stands(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert folder(name) == ROOT / name and folder(name).is_dir()


def test_missing_resources_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(dcodp.resources, "files", lambda package: tmp_path / "site-packages" / package)
    with pytest.raises(InputError, match="came without its folder conf; install dcodp again"):
        folder("conf")
    (tmp_path / "site-packages" / "dcodp" / "conf").mkdir(parents=True)
    assert folder("conf") == tmp_path / "site-packages" / "dcodp" / "conf"
