"""`dcodp export`: a small net in other programs' files, each held against the net and timed beside it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcodp.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from dcodp.export.checking import Result


def export(
    weights: Annotated[Path, typer.Argument(help="small.safetensors or small.pt of dcodp prune, or ultralytics' .pt.")],
    to: Annotated[
        str, typer.Option(help="onnx, openvino, torchscript, torch_export, ncnn; several with commas.")
    ] = "onnx",
    out: Annotated[Path, typer.Option(help="Folder for the files and export.json.")] = Path("exported"),
    imgsz: Annotated[int | None, typer.Option(help="Image size, fixed in the files (default: as trained).")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="data.yaml, or a folder of images, to compare on (default: two that come along)."),
    ] = None,
    images: Annotated[int, typer.Option(help="How many images to compare on.")] = 8,
    threads: Annotated[int | None, typer.Option(help="CPU threads that are timed (default: all).")] = None,
    spin: Annotated[bool, typer.Option(help="--no-spin: threads wait asleep, steadier beside other work.")] = True,
    runs: Annotated[int, typer.Option(help="Timed rounds.")] = 20,
    import_: Annotated[list[str] | None, typer.Option("--import", help="Module with layers of your own.")] = None,
) -> None:
    """Write a net as ONNX, OpenVINO, …; show for each file that it computes the same, and how fast."""
    from dcodp.export.checking import export_checked, head_of, predictions
    from dcodp.export.formats import require_known

    for name, value in (("--runs", runs), ("--threads", threads), ("--images", images)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is out of range; use 1 or more")
    formats = [word.strip() for word in to.split(",") if word.strip()]
    require_known(formats)
    opened = open_net(weights, tuple(import_ or ()))
    names = [opened.names[number] for number in sorted(opened.names)]
    size = image_size(opened, imgsz)
    batches = pictures(data, images, size)
    result = export_checked(
        opened.network, batches, predictions, formats, out, weights.stem,
        head=head_of(opened.network, opened.task, len(names), size),
        names=names, threads=threads, spin=spin, runs=runs,
    )  # fmt: skip
    write_facts(result, out, weights.name, size, spin)
    show(result, out)
    if result.failed:
        raise InputError("not exported: " + "; ".join(f"{name} ({why})" for name, why in result.failed.items()))


def open_net(path: Path, imports: Sequence[str] = ()) -> Any:
    """The net with its `task`, `names` (number → name) and the image size that it was trained at."""
    return importlib.import_module("dcodp.detectors.ultralytics.opening").open_checkpoint(path, imports)


def image_size(opened: Any, asked: int | None) -> int:
    """What was asked for, else what the net was trained at, else 640. Raises InputError unless the strides fit."""
    size, stride = asked or opened.image_size or 640, int(max(opened.network.stride))
    if size < stride or size % stride:
        raise InputError(f"imgsz={size} does not fit the net's strides; use a multiple of {stride}")
    return size


def pictures(data: Path | None, most: int, size: int) -> list[Tensor]:
    """Batches [1, 3, size, size] in 0 … 1, letterboxed. Raises InputError where there are none."""
    import torch

    from dcodp.data.images import letterbox, read_image

    paths = picture_files(data)[:most]
    if not paths:
        raise InputError(f"no images in {data}; give a data.yaml or a folder with --data, and --images of 1 or more")
    squares = [torch.from_numpy(letterbox(read_image(path), size)[0]) for path in paths]
    return [square.permute(2, 0, 1)[None].float() / 255 for square in squares]


def picture_files(data: Path | None) -> Sequence[Path]:
    """Those of the data's validation split or of a folder; without data those that ultralytics brings."""
    from dcodp.data import data_yaml

    if data is not None and not data.is_dir():
        return data_yaml.images(data, data_yaml.read(data), "val")
    if data is None:
        from dcodp import _ultralytics

        _ultralytics.prepare()
        from ultralytics.utils import ASSETS

        data = Path(ASSETS)
    return sorted(path for path in data.rglob("*") if path.suffix.lower() in data_yaml.SUFFIXES)


def write_facts(result: Result, out: Path, source: str, size: int, spin: bool) -> None:
    """export.json: what the table shows, and on what it was measured."""
    import torch

    from dcodp.files import write_atomically

    facts = {
        "source": source, "image_size": size, "spin": spin, "torch": torch.__version__,
        "net": asdict(result.net) if result.net else None,
        "files": [checked.facts(out) for checked in result.files],
        "failed": result.failed,
    }  # fmt: skip
    write_atomically(out / "export.json", json.dumps(facts, indent=1) + "\n")


def show(result: Result, out: Path) -> None:
    """One line per file, and the net itself, as torch runs it, for comparison."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "MiB", "error", "detections", "ms", box=SIMPLE)
    for checked in result.files:
        found, seen = checked.equality, checked.equality.detections
        table.add_row(
            checked.file.path.name, f"{checked.file.size / 2**20:.1f}", f"{found.largest:.1e}",
            "" if seen is None else f"{found.unmatched} of {seen} differ", _milliseconds(checked.latency),
        )  # fmt: skip
    if result.net:
        table.add_row("the net, in torch", "", "", "", _milliseconds(result.net))
    console = Console()
    console.print(table)
    legend = f"error: largest, relative; ms: median (quartiles), {_threads(result)}"
    console.print(f"in {out}, with export.json; {legend}", highlight=False, markup=False, soft_wrap=True)


def _threads(result: Result) -> str:
    count = result.net.threads if result.net else None
    return f"{count} thread{'s' * (count != 1)}"


def _milliseconds(latency: Any) -> str:
    return f"{latency.median_ms:.1f} ({latency.q1_ms:.1f}…{latency.q3_ms:.1f})"
