import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import made

from dcodp.detectors.ultralytics.opening import open_checkpoint


@pytest.fixture(scope="session")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a YOLOv8n for two classes."""
    return made.checkpoint(tmp_path_factory.mktemp("best") / "best.pt", "yolov8n")


@pytest.fixture(scope="session")
def small(best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.pt of half of its channels; small.safetensors lies beside it."""
    opened = open_checkpoint(best)
    return made.written(tmp_path_factory.mktemp("small"), opened, made.halved(opened))
