"""`dcodp prune`: from a trained detector to a small one that still detects, with a card that shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def prune(
    weights: Annotated[
        Path, typer.Argument(help="The .pt that ultralytics wrote, a small.pt, or with --model any state dict.")
    ],
    data: Annotated[Path | None, typer.Option(help="data.yaml of the images (to classify: their folder).")] = None,
    images: Annotated[Path | None, typer.Option(help="In place of --data: a folder of images without labels.")] = None,
    model: Annotated[
        str | None, typer.Option(help="For weights alone: what they are of, faster_rcnn, retinanet, fcos, …")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Share to keep: flops:0.5 (default), parameters:0.5 or latency:0.5.")
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="In place of --target: share of each group to remove (strong: as few FLOPs as that leaves)."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning; 0: repair alone.")] = None,
    imgsz: Annotated[int | None, typer.Option(help="Image size (default: as trained).")] = None,
    method: Annotated[str, typer.Option(help="A name of conf/method: strong, paper, …")] = "strong",
    split: Annotated[str, typer.Option(help="Split that is measured on: val or test.")] = "val",
    export: Annotated[str, typer.Option(help="Formats to write, with commas: onnx, openvino, … (dcodp export).")] = "",
    round_to: Annotated[
        int | None,
        typer.Option(
            help="Kept channels are a multiple of this (default: of 8 where the target is met; latency: of 16, 8 or 1)."
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="What a target latency is met in: onnxruntime (default) or openvino.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads that latency is measured with (default: all).")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="JSON of layer times, measured before or on the device.")] = None,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 16,
    lr: Annotated[float | None, typer.Option(help="Learning rate (default: by the number of images).")] = None,
    seed: Annotated[int, typer.Option(help="Draws calibration images and the order of training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    import_: Annotated[list[str] | None, typer.Option("--import", help="Module with layers of your own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for small.pt, small.safetensors, plan.json and the card.")] = Path(
        "small"
    ),
) -> None:
    """Make a smaller detector of a trained one: prune, repair, fine-tune with distillation, measure."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see dcodp run
    from dcodp.errors import InputError
    from dcodp.progress import set_up_logging
    from dcodp.yolo.job import Job, composed, run

    set_up_logging()
    if target is not None and ratio is not None:
        raise InputError("--target and --ratio were both given; choose one")
    asked: dict[str, Any] = {"target": target} if ratio is None else {"target": None, "ratio": ratio}
    if ratio is None and target is None:
        asked = {"target": "flops:0.5"}
    job = Job(
        weights, out, data, images, epochs=epochs, image_size=imgsz, split=split, round_to=round_to, batch=batch,
        lr=lr, seed=seed, device=device, imports=tuple(import_ or ()), runtime=runtime, threads=threads, table=table,
        export=tuple(word.strip() for word in export.split(",") if word.strip()), **asked,
    )  # fmt: skip
    if model is None:
        card = run(job, composed(method, job.target))
    else:
        from dcodp.named import prune_named

        card = prune_named(model, job, method)
    show(card, out)


def show(card: dict[str, Any], out: Path) -> None:
    """The card's table, and where everything lies."""
    from rich.console import Console
    from rich.table import Table

    from dcodp.report.card import rows

    table = Table("", "dense", "small", "share")
    for row in rows(card):
        table.add_row(*row)
    console = Console()
    console.print(table)
    made = [out / name for name in ("small.pt", "small.safetensors", "plan.json", "card.md", "pictures.png")]
    console.print(", ".join(str(path) for path in made if path.exists()), soft_wrap=True)
