"""`dcodp data fetch` and `dcodp data check`: bring published data sets here, and say what a data set holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dcodp.errors import InputError
from dcodp.resources import folder

if TYPE_CHECKING:  # reading images needs torch's loaders: only when a check runs
    from dcodp.data.checking import CheckReport, SplitReport

Data = Annotated[Path, typer.Option(help="The data folder (paths.data of the runs).")]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A folder of your own with model/NAME.yaml, dataset/NAME.yaml, …")
]


def fetch(
    datasets: Annotated[list[str], typer.Argument(help="voc2007, voc2012, coco2017, bccd; several at once.")],
    data: Data = Path("data"),
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the archives: no network is used then.")
    ] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Leave the downloaded archives in DATA/downloads.")
    ] = False,
    sources: Annotated[
        Path | None, typer.Option(help="A file like dcodp's conf/sources.yaml, to read in its place.")
    ] = None,
) -> None:
    """Download, verify and unpack published data sets; interrupted, the same command goes on.

    BCCD comes with a data.yaml: `dcodp prune best.pt --data DATA/bccd/data.yaml`.
    """
    from dcodp.data.fetching import fetch
    from dcodp.data.sources import read_sources

    known = read_sources(sources or folder("conf") / "sources.yaml")
    for name in datasets:
        if name not in known:
            raise InputError(f"{name} has no published archives; use one or more of {', '.join(known)}")
    for name in datasets:
        try:
            fetch(known[name], data, source, keep_archives, typer.echo)
        except KeyboardInterrupt:
            typer.echo("interrupted; what has arrived is kept, and the same command goes on from there", err=True)
            raise
        typer.echo(f"{name}: ready under {data}; dcodp data check {name} --data {data} looks at every image")


def check(
    dataset: Annotated[str, typer.Argument(help="A name of conf/dataset: voc2007, coco2017, custom, …")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings as for dcodp run: dataset.file=data.yaml, dataset.val=test, …")
    ] = None,
    data: Data = Path("data"),
    config_dir: ConfigDir = None,
) -> None:
    """Read every image and annotation, count them, and name everything that is wrong (exit status 1 then)."""
    from dcodp.compose import cells, register
    from dcodp.data.checking import check

    register()
    place = str(data).replace("'", r"\'")  # in quotes, for folders with commas or spaces
    chosen = [f"dataset={dataset}", f"paths.data='{place}'", *(overrides or ())]
    found = [config for _, config in cells(folder("conf"), chosen, config_dir)]
    if len(found) > 1:
        raise InputError("several data sets were asked for; check one at a time")
    report = check(found[0].dataset, data)
    print_check(report)
    if not report.ok:
        raise typer.Exit(1)


def build_data_app() -> typer.Typer:
    app = typer.Typer(help="Fetch published data sets, and check any data set.", no_args_is_help=True)
    app.command()(fetch)
    app.command()(check)
    return app


def print_check(report: CheckReport, to: Console | None = None) -> None:
    """Counts of both splits side by side, then every problem on a line of its own."""
    to = to or Console()
    if report.splits:
        to.print(_counts(report))
    for problem in report.problems:
        to.print(Text(problem), soft_wrap=True)
    number = len(report.problems)
    verdict = f"{number} problem{'s' * (number > 1)}, see above" if number else "every image and annotation is whole"
    to.print(Text(f"{report.name}: {verdict}", "bold"), soft_wrap=True)


def _counts(report: CheckReport) -> Table:
    table = Table(title=Text(report.name, "bold"), title_justify="left")
    table.add_column("")
    for split in report.splits:
        table.add_column(Text(f"{split.split} ({split.name})"), justify="right")
    for label, value in _LINES.items():
        table.add_row(label, *map(value, report.splits), end_section=label == "fingerprint")
    for name in _classes(report.splits):
        table.add_row(Text(name), *(f"{split.objects.get(name, 0):,}" for split in report.splits))
    return table


def _images(split: SplitReport) -> str:
    """ "126 of 5,011" where the published split has more images than are listed here."""
    more = split.published is not None and split.images < split.published
    return f"{split.images:,} of {split.published:,}" if more else f"{split.images:,}"


_LINES: dict[str, Callable[[SplitReport], str]] = {
    "images": _images,
    "objects": lambda split: f"{sum(split.objects.values()):,}",
    "difficult": lambda split: f"{split.difficult:,}",
    "crowds": lambda split: f"{split.crowd:,}",
    "problems": lambda split: f"{len(split.problems):,}",
    "fingerprint": lambda split: split.fingerprint,
}


def _classes(splits: Sequence[SplitReport]) -> list[str]:
    return list(dict.fromkeys(name for split in splits for name in split.objects))
