"""ONNX, static shapes, float32."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch

from dcodp.export.formats.exportable import Exportable
from dcodp.files import write_atomically

OPSET = 18  # what onnxruntime, OpenVINO and ultralytics' readers all take
IR_VERSION = 10  # older runtimes refuse newer ones


def write(net: Exportable, path: Path) -> None:
    write_atomically(path, onnx_bytes(net))


def onnx_bytes(net: Exportable) -> bytes:
    """The file's content.

    The exporter that records a run (dynamo=False): it needs no package beside onnx, ultralytics' own exporter uses it,
    and it follows torchvision's detectors, whose numbers of detections torch.export takes no static shape for.
    """
    import onnx

    stream: Any = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter is the older one, and what a recorded run cannot vary
        torch.onnx.export(
            net.module, (net.example,), stream, dynamo=False, opset_version=OPSET,
            input_names=["images"], output_names=net.output_names,
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    for key, value in net.facts.items():
        fact = model.metadata_props.add()
        fact.key, fact.value = key, value
    model.ir_version = min(model.ir_version, IR_VERSION)
    return model.SerializeToString()
