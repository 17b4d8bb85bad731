"""The coupling graph for people: one row per group and per frozen layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from rich.console import Console
from rich.table import Table

from dcodp.graph.groups import FrozenLayer, Group


class Explained(Protocol):
    """What the table shows of a coupling graph."""

    groups: list[Group]
    frozen: list[FrozenLayer]
    parents: dict[str, list[str]]
    notes: list[str]


def explanation(graph: Explained) -> Table:
    """A table with every group (its channels, layers, parents, readers) and every frozen layer with the reason."""
    table = Table(title=f"{len(graph.groups)} groups, {sum(g.channels for g in graph.groups)} removable channels")
    table.add_column("group")
    table.add_column("channels", justify="right")
    table.add_column("layers whose filters go together")
    table.add_column("parents (Algorithm 1)")
    table.add_column("read by")
    for group in graph.groups:
        parents = dict.fromkeys(p for layer in group.layers for p in graph.parents.get(layer, ()))
        cells = (group.layers, [p for p in parents if p not in group.layers], group.consumers)
        table.add_row(group.name, str(group.channels), *(_listed(names) for names in cells))
    for frozen in graph.frozen:
        table.add_row(frozen.layer, f"{frozen.channels} fixed", frozen.reason, "", "", style="dim")
    return table


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _unscored(graph: Explained, scores: Collection[str] | None) -> list[str]:
    left = [] if scores is None else [group.name for group in graph.groups if group.name not in scores]
    return [f"no scores, so that all channels stay: {_listed(left)}"] if left else []


def as_text(graph: Explained, scores: Collection[str] | None = None, width: int = 200) -> str:
    """`explanation` as plain text, with what is to be known of it below."""
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(explanation(graph))
        for note in [*graph.notes, *_unscored(graph, scores)]:
            console.print(note, markup=False, soft_wrap=True)
    return captured.get()
