"""OpenVINO's own format, from the ONNX that the net becomes: a folder with NAME.xml, NAME.bin and metadata.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from dcodp.export.formats.as_onnx import onnx_bytes
from dcodp.export.formats.exportable import Exportable
from dcodp.files import replacing_folder


def write(net: Exportable, path: Path) -> None:
    """`path`: NAME_openvino_model, by whose name ultralytics knows the format."""
    import openvino  # type: ignore

    content = onnx_bytes(net)
    with replacing_folder(path) as folder:
        source = folder / "model.onnx"
        source.write_bytes(content)
        model = openvino.convert_model(source)
        openvino.save_model(model, folder / f"{path.name.removesuffix('_openvino_model')}.xml", compress_to_fp16=False)
        source.unlink()
        (folder / "metadata.yaml").write_text(json.dumps(dict(net.facts), indent=1))  # JSON is YAML, too
