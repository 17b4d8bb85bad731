"""Cards of `dcodp prune` beside the records: their tables, and accuracy against FLOPs and latency in each runtime.

RESULTS/card.json and RESULTS/*/card.json are read. Cards of one checkpoint at one image size, measured on the same
images, are compared with each other; every card has timed its dense net beside its small one, so both are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dcodp.files import read_json
from dcodp.report.layouts import COLUMNS, Column
from dcodp.report.methods import budget_name
from dcodp.report.pareto import COSTS, DENSE, Net, Panel
from dcodp.report.query import Measurement
from dcodp.report.tables import ABSENT, Row, Table

NETS = ("dense", "pruned")
GAINS = (COLUMNS["map50_95"], COLUMNS["map50"], Column("Top-1 (%)", "top1"))
SIZES = (COLUMNS["parameters"], COLUMNS["flops"])


@dataclass(frozen=True)
class Card:
    """`name`: of its folder."""

    name: str
    tree: Mapping[str, Any]

    @property
    def subject(self) -> tuple[str, str]:
        """(what was pruned and at which size, on which images both nets were measured)."""
        dense = self.tree["dense"]
        on = (
            f"{dense['images']} images of the {dense.get('split', 'val')} split"
            if dense.get("images")
            else "no labelled images"
        )
        return f"{self.tree['source']} at {self.tree['image_size']} px", on

    @property
    def budget(self) -> str:
        asked = self.tree["asked"]
        return budget_name(asked.get("target") or "", asked.get("ratio") or 0.0)

    @property
    def times(self) -> dict[str, Mapping[str, Any]]:
        """{runtime with threads and machine: {"dense": {"median_ms", …}, "pruned": …}}."""
        machine = str(self.tree["versions"].get("machine", ""))
        found = {}
        for key, times in self.tree.get("latency", {}).items():
            threads = times["dense"].get("threads")
            told = (times.get("runtime", key), f"{threads} threads" if threads else "", machine)
            found[", ".join(filter(None, told))] = times
        return found

    def value(self, net: str, key: str) -> float | None:
        found = self.tree[net].get(key)
        return float(found) if isinstance(found, int | float) else None

    def time(self, net: str, runtime: str) -> float | None:
        times = self.times.get(runtime)
        return float(times[net]["median_ms"]) if times else None


Cost = Callable[[Card, str], float | None]  # card and net → what it costs


def load_cards(results: Path) -> list[Card]:
    """By folder. Raises InputError for a file that is no JSON; one that is no card of a pruned net is left alone."""
    paths = [Path(results) / "card.json", *sorted(Path(results).glob("*/card.json"))]
    read = [(path.resolve().parent.name, read_json(path)) for path in paths if path.is_file()]
    return [Card(name, tree) for name, tree in read if _is_card(tree)]


def _is_card(tree: Any) -> bool:
    if not isinstance(tree, dict) or tree.get("format") != 1 or not {"source", "image_size"} <= tree.keys():
        return False
    return all(isinstance(tree.get(key), dict) for key in ("asked", "versions", *NETS))


def alike(cards: Iterable[Card]) -> Iterator[list[Card]]:
    """Those that can be compared, group by group."""
    for _, group in groupby(sorted(cards, key=lambda card: card.subject), key=lambda card: card.subject):
        yield list(group)


def gain_of(cards: Sequence[Card]) -> Column | None:
    """The accuracy that all of them have."""
    for column in GAINS:
        if all(card.value(net, column.value) is not None for card in cards for net in NETS):
            return column
    return None


def title_of(cards: Sequence[Card]) -> str:
    return cards[0].subject[0]


def caption_of(cards: Sequence[Card]) -> str:
    return f"Both nets on {cards[0].subject[1]}"


def runtimes(cards: Sequence[Card]) -> list[str]:
    return list(dict.fromkeys(runtime for card in cards for runtime in card.times))


def panels(cards: Sequence[Card], gain: Column) -> list[Panel]:
    """FLOPs first, then one panel for each runtime."""
    found = [_panel("", COSTS["flops"][0], cards, gain, _giga)]
    for runtime in runtimes(cards):
        found.append(_panel(runtime, COSTS["latency_ms"][0], cards, gain, partial(Card.time, runtime=runtime)))
    return [panel for panel in found if panel.nets]


def _giga(card: Card, net: str) -> float | None:
    flops = card.value(net, "flops")
    return None if flops is None else flops * COSTS["flops"][1]


def _panel(title: str, label: str, cards: Sequence[Card], gain: Column, cost: Cost) -> Panel:
    nets: dict[tuple[float, float], Net] = {}
    for card in cards:
        for net in NETS:
            spent, got = cost(card, net), card.value(net, gain.value)
            if spent is not None and got is not None:
                found = Net(str(card.tree["asked"]["method"]), DENSE if net == DENSE else card.budget, spent, 100 * got)
                nets.setdefault(found.place, found)
    return Panel(title, label, tuple(nets.values()))


def tables(cards: Iterable[Card]) -> list[Table]:
    return [_table(group) for group in alike(cards)]


def _table(cards: Sequence[Card]) -> Table:
    gains = [column for column in GAINS if any(card.value("dense", column.value) is not None for card in cards)]
    timed = [Column(f"Latency (ms): {runtime}", runtime, "ms") for runtime in runtimes(cards)]
    rows = [_row(card, net, (*gains, *SIZES), timed) for card in cards for net in NETS]
    notes = [
        f"Accuracy × 100 on {cards[0].subject[1]}." if gains else "Accuracy was not measured.",
        "FLOPs count a multiply-accumulate as two.",
        "Latency: one image, medians, the dense net and its small one in turns." if timed else "",
    ]
    title, columns = f"{title_of(cards)}, pruned by dcodp prune", (*gains, *SIZES, *timed)
    return Table(title, title, ("Card", "Net", "Method"), columns, tuple(rows), tuple(filter(None, notes)))


def _row(card: Card, net: str, columns: Sequence[Column], timed: Sequence[Column]) -> Row:
    values = [card.value(net, column.value) for column in columns] + [card.time(net, c.value) for c in timed]
    cells = tuple(ABSENT if value is None else Measurement(value, None, 1) for value in values)
    dense = net == DENSE
    labels = (card.name, "dense" if dense else card.budget, "" if dense else str(card.tree["asked"]["method"]))
    return Row(labels, cells, (), dense)
