"""TorchScript: a recorded run that torch reads without this project's code."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from dcodp.export.formats.exportable import Exportable
from dcodp.files import write_atomically


def write(net: Exportable, path: Path) -> None:
    stream = io.BytesIO()
    facts: Any = {"config.txt": json.dumps(dict(net.facts))}  # where ultralytics looks for them
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torch.export; see torch_export
        traced: Any = torch.jit.trace(net.module, net.example, strict=False, check_trace=False)
        torch.jit.save(traced, stream, _extra_files=facts)
    write_atomically(path, stream.getvalue())
