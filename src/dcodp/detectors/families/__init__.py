"""The detector families by name: `families/NAME.py` (or a package) has `build(model, classes)`.

Each brings its own libraries, so it is imported when it is asked for.
"""

from collections.abc import Callable

from dcodp.config import ModelConfig
from dcodp.detectors.base import Detector
from dcodp.registry import Registry

Build = Callable[[ModelConfig, tuple[str, ...]], tuple[Detector, list[str]]]  # the detector, and notes on its weights
FAMILIES: Registry[Build] = Registry(__name__, "build", key="model.family", kind="a family")
