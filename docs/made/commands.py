"""Every command of `dcodp` with its arguments and options, as `--help` has them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from dcodp.cli import build_app
from dcodp.report.formats import markdown_rows


def blocks(root: Path) -> dict[str, str]:
    """mark → Markdown."""
    return {"commands": "\n\n".join(_told(name, command) for name, command in commands(_app(), "dcodp"))}


def _app() -> Any:
    return typer.main.get_command(build_app())


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """("dcodp data fetch", its command), … of an app or a command, in order."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for word, inner in (below or {}).items():
        yield from commands(inner, f"{name} {word}")


def _told(name: str, command: Any) -> str:
    rows = [[_typed(p), _default(p), (getattr(p, "help", None) or "").replace("|", "\\|")] for p in command.params]
    table = "\n\n" + markdown_rows([["", "default", "what it is"], *rows], right=()) if rows else ""
    told = (command.help or "").strip().replace("[", "\\[")  # no links
    return f"## `{name}`\n\n{told}{table}"


def _typed(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])


def _default(parameter: Any) -> str:
    if parameter.required:
        return "must be given"
    return "" if parameter.default in (None, (), "") or parameter.default is False else f"`{parameter.default}`"
