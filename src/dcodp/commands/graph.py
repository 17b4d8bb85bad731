"""`dcodp graph`: what can be pruned from a model, what goes together, and why the rest stays."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dcodp.commands.data import ConfigDir
from dcodp.errors import InputError
from dcodp.resources import folder

if TYPE_CHECKING:
    from dcodp.graph import CouplingGraph


def graph(
    model: Annotated[str, typer.Argument(help="A name of conf/model (yolov8n, …) or package.module:callable.")],
    image_size: Annotated[int, typer.Option(help="Side of the example image in pixels.")] = 128,
    classes: Annotated[int, typer.Option(help="Number of classes, for a name of conf/model.")] = 80,
    first_output: Annotated[
        bool, typer.Option("--first-output", help="For package.module:callable: only the first result must stay.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Folder for pictures (SVG, PNG) of a residual, ELAN, RepConv and FPN pattern.")
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Print the coupling groups of a model with their layers, parents and readers, and every layer that stays."""
    from rich.console import Console

    from dcodp.graph.view.draw import draw_patterns
    from dcodp.graph.view.explain import explanation

    if ":" in model:
        found = trace_called(model, image_size, first_output)
    else:
        found = trace_named(model, image_size, classes, config_dir)
    console = Console()
    console.width = max(console.width, 160)
    console.print(explanation(found))
    for note in found.notes:
        console.print(note, highlight=False, markup=False)
    if draw is not None:
        written = draw_patterns(found, draw)
        names = ", ".join(dict.fromkeys(path.stem for path in written)) or "none of the patterns is in this model"
        console.print(f"pictures in {draw}: {names}", highlight=False, markup=False, soft_wrap=True)


def trace_named(name: str, image_size: int, classes: int, config_dir: Path | None = None) -> CouplingGraph:
    """A detector of conf/model, without weights."""
    from dcodp.compose import cells, register
    from dcodp.detectors.registry import build

    register()
    ((_, config),) = cells(folder("conf"), [f"model={name}"], config_dir)
    detector, _ = build(config.model, tuple(f"class {i}" for i in range(classes)))
    return detector.coupling_graph(image_size)


def trace_called(where: str, image_size: int, first_output: bool) -> CouplingGraph:
    """What `package.module:callable()` returns, on one image [1, 3, S, S]."""
    import torch

    from dcodp.graph import trace

    model: Any = _resolve(where)()
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{where} returns a {type(model).__name__}; give a callable that returns a torch.nn.Module")
    image = torch.rand(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    return trace(model, (image,), outputs=(lambda result: result[0]) if first_output else None)


def _resolve(where: str) -> Any:
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise InputError(f"{where} cannot be imported ({error}); write package.module:callable") from error
