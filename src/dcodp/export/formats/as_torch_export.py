"""torch.export's program: what AOTInductor and ExecuTorch start from."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch

from dcodp.export.formats.exportable import Exportable
from dcodp.files import write_atomically


def write(net: Exportable, path: Path) -> None:
    stream = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how shared tensors are packed
        program = torch.export.export(net.module, (net.example,))
        torch.export.save(program, stream, extra_files={"config.txt": json.dumps(dict(net.facts))})
    write_atomically(path, stream.getvalue())
