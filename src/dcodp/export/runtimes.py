"""Exported files as functions: images in, tensors out, on a stated number of CPU threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dcodp.errors import InputError
from dcodp.export.formats.exportable import Outputs
from dcodp.extras import told_if_missing
from dcodp.graph.tracing import result_tensors
from dcodp.processor import cpu_name


@dataclass(frozen=True)
class Runner:
    """images [B, 3, H, W] float32 (torch or numpy) → list of tensors."""

    runtime: str  # "onnxruntime", "openvino", "torch"
    version: str
    threads: int
    call: Callable[[Tensor], list[Tensor]]

    def __call__(self, images: Tensor | np.ndarray) -> list[Tensor]:
        return self.call(torch.as_tensor(images))


def default_threads() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Machine:
    """What a net runs in: a runtime that takes ONNX, how many threads, and whether those wait for work by spinning.

    Onnxruntime's own choice is to spin; beside other work on the same cores not spinning is faster, and steadier.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    spin: bool = True
    version: str = ""
    processor: str = ""

    def alike(self, other: Machine) -> bool:
        """Whether times of one tell something of the other; versions, processors and how threads wait may differ."""
        return (self.runtime, self.threads) == (other.runtime, other.threads)

    @property
    def is_here(self) -> bool:
        """Whether it is this computer; what does not name its processor is taken for it."""
        return self.processor in ("", cpu_name())

    def versioned(self) -> Machine:
        """The same with the version of the runtime that is installed here, and this processor."""
        named = replace(self, processor=cpu_name())
        try:
            return replace(named, version=metadata.version(self.runtime))
        except metadata.PackageNotFoundError:
            return named


def open_exported(path: Path | str, threads: int | None = None, spin: bool = True) -> Runner:
    """Opens a file (or OpenVINO's folder) of `formats.export` in its runtime, told by its name.

    `spin`: as `Machine` has it.
    Raises InputError for an unknown kind of file, and where it is absent or its runtime not installed.
    """
    path, threads = Path(path), threads or default_threads()
    for suffix, opener in _OPENERS.items():
        if path.name.endswith(suffix):
            if not path.exists():
                raise InputError(f"{path} does not exist; write it with dcodp export")
            with told_if_missing():
                return opener(path, threads, spin)
    raise InputError(f"{path} is no exported net; use a file that ends in {', '.join(_OPENERS)}")


def open_onnx(content: bytes, machine: Machine) -> Runner:
    """The same of ONNX in memory, in either runtime that takes it."""
    if machine.runtime not in _ONNX:
        raise InputError(f"runtime={machine.runtime} is not known; use {' or '.join(_ONNX)}")
    with told_if_missing():
        return _ONNX[machine.runtime](content, machine.threads, machine.spin)


def eager(network: nn.Module, outputs: Outputs, threads: int | None = None, listed: bool = False) -> Runner:
    """The net itself, in the mode in which it is; `listed`: it takes a list of images."""

    def call(images: Tensor) -> list[Tensor]:
        return result_tensors(outputs(network(list(images) if listed else images)))

    return _torch(call, threads or default_threads())


def _onnxruntime(source: Any, threads: int, spin: bool) -> Runner:
    """`source`: a path or the content."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or idle nets slow the one that is timed
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    source = str(source) if isinstance(source, Path) else source
    session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def call(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array) for array in session.run(None, {entry: images.numpy()})]

    return Runner("onnxruntime", onnxruntime.__version__, threads, call)


def _openvino(source: Any, threads: int, _spin: bool) -> Runner:
    """`source`: the folder, or the content of an ONNX file."""
    import openvino  # type: ignore

    core = openvino.Core()
    model = core.read_model(next(source.glob("*.xml")) if isinstance(source, Path) else source)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # elsewhere it may choose bfloat16
    }
    compiled: Any = core.compile_model(model, "CPU", settings)

    def call(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array.copy()) for array in compiled(images.numpy()).values()]

    return Runner("openvino", openvino.__version__.partition("-")[0], threads, call)


def _ncnn(folder: Path, threads: int, _spin: bool) -> Runner:
    import ncnn  # type: ignore

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))

    def call(images: Tensor) -> list[Tensor]:
        if len(images) != 1:
            raise InputError(f"ncnn has no batches, and was given {len(images)} images; give one at a time")
        image = images[0].contiguous().numpy()  # ncnn reads the memory as it lies, and does not keep it
        with net.create_extractor() as extractor:
            extractor.input(net.input_names()[0], ncnn.Mat(image).clone())
            outputs = [extractor.extract(name)[1] for name in sorted(net.output_names())]
            return [torch.from_numpy(np.array(output))[None] for output in outputs]

    return Runner("ncnn", ncnn.__version__, threads, call)


def _torchscript(path: Path, threads: int, _spin: bool) -> Runner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = torch.jit.load(str(path), map_location="cpu").eval()
    return _torch(lambda images: result_tensors(module(images)), threads)


def _torch_export(path: Path, threads: int, _spin: bool) -> Runner:
    program = torch.export.load(str(path)).module()
    return _torch(lambda images: result_tensors(program(images)), threads)


def _torch(call: Callable[[Tensor], list[Tensor]], threads: int) -> Runner:
    """Torch's number of threads is the process's: it is set for the call and put back."""

    @torch.no_grad()
    def within(images: Tensor) -> list[Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return call(images)
        finally:
            torch.set_num_threads(before)

    return Runner("torch", torch.__version__, threads, within)


_ONNX = {"onnxruntime": _onnxruntime, "openvino": _openvino}
_OPENERS: dict[str, Callable[[Path, int, bool], Runner]] = {
    ".onnx": _onnxruntime,
    "_openvino_model": _openvino,
    "_ncnn_model": _ncnn,
    ".torchscript": _torchscript,
    ".pt2": _torch_export,
}
