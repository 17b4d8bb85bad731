"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# A worker of pytest -n has one core, and so has what its tests start; torch and numpy read this as they load.
os.environ.update({"OMP_NUM_THREADS": "1"} if "PYTEST_XDIST_WORKER" in os.environ else {})

import torch

# Before anything imports ultralytics: it would look names up on the network and install packages by itself.
os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def counted_layers(monkeypatch: pytest.MonkeyPatch):
    """Layers take what they multiply: no clock, beside other work, decides whether a share of the time can be met."""
    pytest.importorskip("onnxruntime")
    import dcodp.export.layer_costs as costs

    monkeypatch.setattr(costs, "layer_ms", lambda layer, machine: 1e-4 * (1 + layer.inputs * layer.outputs))


@pytest.fixture(scope="session")
def weights(realdata: Path):
    """name → a file of real weights; skips the test, visibly, where it is absent."""

    def find(name: str) -> Path:
        if not (realdata / "weights" / name).is_file():
            pytest.skip(f"no weights {name} in {realdata / 'weights'}")
        return realdata / "weights" / name

    return find


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real weights and images; skips the test, visibly, where it is absent."""
    folder = Path(os.environ.get("DCODP_REALDATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set DCODP_REALDATA")
    return folder
