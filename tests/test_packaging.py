"""What installs the project agrees with what it says it needs."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {m[1].lower(): m[2] for line in lines if (m := re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line))}


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower()


def test_every_dependency_is_pinned_with_hashes_and_without_addresses():
    extras = [r for key in ("dev", "export") for r in PROJECT["optional-dependencies"][key]]
    assert {name_of(r) for r in [*PROJECT["dependencies"], *extras]} <= set(pinned())
    text = (ROOT / "requirements.lock").read_text()
    assert "http" not in re.sub(r"^\S*http\S*==.*$", "", text, flags=re.M) and text.count("--hash=sha256:") > 100


def test_ultralytics_is_pinned_exactly():
    assert f"ultralytics=={pinned()['ultralytics']}" in PROJECT["dependencies"]


def test_the_conda_environment_is_thin_and_agrees():
    text = (ROOT / "environment.yml").read_text()
    entries = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    wanted = f"python{PROJECT['requires-python']}"
    assert entries == ["conda-forge", wanted, "pip", "pip:", "-r requirements.lock", "-e ."]


@pytest.mark.parametrize("word", ["torch.load(", "pickle.load"])
def test_no_pickle_is_loaded(word):
    for path in (ROOT / "src").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert word not in line or "weights_only=True" in line, f"{path}: {line}"
