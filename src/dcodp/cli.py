"""The `dcodp` command. Each command or group of commands is a function or sub-app of its own, put together in
`build_app`; what a command needs is imported when it runs, so that `report` and `status` need no torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dcodp.errors import InputError
from dcodp.extras import told_if_missing

if TYPE_CHECKING:  # an extra, like all that the commands need
    import typer

# Hydra reads these words, --help included.
AS_TYPED = {"allow_extra_args": True, "ignore_unknown_options": True}


def build_app() -> typer.Typer:
    import typer

    from dcodp.commands.data import build_data_app
    from dcodp.commands.export import export
    from dcodp.commands.graph import graph
    from dcodp.commands.prune import prune
    from dcodp.commands.report import report
    from dcodp.commands.run import run
    from dcodp.commands.status import status

    app = typer.Typer(
        help="Structured pruning for object detectors: runs, reports and tools.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command(context_settings=AS_TYPED, add_help_option=False)(run)
    app.command()(prune)
    app.command()(export)
    app.command()(report)
    app.command()(status)
    app.command()(graph)
    app.add_typer(build_data_app(), name="data")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what was typed (default: on the command line) and exits. Bad input: one line on stderr and exit status 2;
    anything else keeps its traceback."""
    try:
        with told_if_missing():
            build_app()(arguments)
    except InputError as error:
        print(f"dcodp: {error}", file=sys.stderr)
        sys.exit(2)
