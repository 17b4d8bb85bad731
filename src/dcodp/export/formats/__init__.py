"""Nets in other programs' files: one module per format, as_FORMAT, each with `write(net, path)`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.evaluation.complexity import as_found
from dcodp.export.formats.exportable import Exportable, Outputs, exportable


@dataclass(frozen=True)
class Format:
    """`suffix`: of the file or folder after its name; `needs`: packages, as imported."""

    suffix: str
    needs: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format(".onnx", ("onnx",)),
    "openvino": Format("_openvino_model", ("onnx", "openvino")),
    "torchscript": Format(".torchscript"),
    "torch_export": Format(".pt2"),
    "ncnn": Format("_ncnn_model", ("pnnx", "ncnn")),
}


@dataclass(frozen=True)
class Exported:
    """One file (for OpenVINO a folder) that was written."""

    format: str
    path: Path

    @property
    def size(self) -> int:
        """Bytes, of all files."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


class SomeFailed(InputError):
    """Some formats were not written: `failed` says why, `written` are the others, whole on disk."""

    def __init__(self, written: Sequence[Exported], failed: dict[str, str]):
        self.written, self.failed = list(written), failed
        done = ", ".join(str(e.path) for e in written) or "nothing"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        super().__init__(f"not exported: {reasons} (written: {done})")


def export(
    network: nn.Module,
    example: Tensor,
    outputs: Outputs,
    to: Sequence[str],
    folder: Path,
    name: str,
    *,
    names: Sequence[str] | None = None,
    listed: bool = False,
) -> list[Exported]:
    """Writes the net, as it computes in eval mode, into `folder` once per format of `to`; each file appears whole.

    example [B, 3, H, W] gives the shapes, which are fixed. `outputs(network(images))` holds the tensors that matter,
    `names` are the classes; `listed`: the net takes a list of images, as torchvision's detectors do.
    Raises InputError for unknown formats, before anything is written, and SomeFailed at the end where formats failed.
    """
    require_known(to)
    net, written, failed = exportable(network, example, outputs, names, listed), [], {}
    for key in dict.fromkeys(to):
        path = folder / f"{name}{FORMATS[key].suffix}"
        try:
            _write(net, key, path)
            written.append(Exported(key, path))
        except Exception as error:  # whatever an exporter says of a net; the other formats do not depend on it
            failed[key] = one_line(error)
    if failed:
        raise SomeFailed(written, failed)
    return written


def one_line(error: Exception) -> str:
    """What an exporter or runtime says, which may be pages."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def require_known(to: Sequence[str]) -> None:
    """Raises InputError where a format is not known, or none was given."""
    for key in to or [""]:
        if key not in FORMATS:
            raise InputError(f"the format {key!r} is not known; use one or more of {', '.join(FORMATS)}")


def _write(net: Exportable, key: str, path: Path) -> None:
    for package in FORMATS[key].needs:
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the package {package} is not installed here; use pip install {package}")
    with as_found(net.module):  # heads keep what they computed, and one exporter's values are nothing to another
        importlib.import_module(f"dcodp.export.formats.as_{key}").write(net, path)
