"""ncnn, for telephones: a folder with model.ncnn.param, model.ncnn.bin and metadata.yaml, made by pnnx."""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import torch

from dcodp.export.formats.exportable import Exportable
from dcodp.files import replacing_folder

KEPT = ("model.ncnn.param", "model.ncnn.bin")


def write(net: Exportable, path: Path) -> None:
    """`path`: NAME_ncnn_model, by whose name ultralytics knows the format.

    pnnx is run as a program, in the folder: it leaves files wherever it stands, and takes its process along when it
    fails.
    """
    import pnnx  # type: ignore

    shape = ",".join(map(str, net.example.shape))
    with replacing_folder(path) as folder:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced: Any = torch.jit.trace(net.module, net.example, strict=False, check_trace=False)
            torch.jit.save(traced, folder / "model.pt")
        done = subprocess.run(
            [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{shape}]", "fp16=0"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not all((folder / name).is_file() for name in KEPT):
            raise RuntimeError(f"pnnx failed ({done.returncode}): {done.stderr.strip()[-200:]}")
        for file in folder.iterdir():
            if file.name not in KEPT:
                file.unlink()
        (folder / "metadata.yaml").write_text(json.dumps(dict(net.facts), indent=1))  # JSON is YAML, too
