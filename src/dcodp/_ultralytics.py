"""One door to ultralytics: no network access, no installs, and none of its traces left in the process.

Importing ultralytics looks names up on the network, writes a settings file, installs what it misses, sets
`OMP_NUM_THREADS=1` for every child process, changes how numpy and torch print, and replaces `torch.save` and
`PIL.Image.open`. Call `prepare()` in a function, then import from ultralytics in that function.
"""

from __future__ import annotations

import functools
import importlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import _tensor_str


def environment() -> dict[str, str]:
    """What ultralytics reads from the environment as it is imported; a value that is set already wins."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "YOLO_CONFIG_DIR": str(Path(tempfile.gettempdir()) / f"dcodp-ultralytics-{user}"),
    }


@functools.cache
def prepare() -> None:
    """Imports ultralytics quietly and offline, then takes back what it changed in the process."""
    for key, value in environment().items():
        os.environ.setdefault(key, value)
    save, open_image, threads = torch.save, Image.open, os.environ.get("OMP_NUM_THREADS")
    torch_print = dict(vars(_tensor_str.PRINT_OPTS))
    with np.printoptions():
        importlib.import_module("ultralytics.nn.tasks")
        importlib.import_module("ultralytics.data.augment")
    torch.save, Image.open = save, open_image
    vars(_tensor_str.PRINT_OPTS).update(torch_print)
    if threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
