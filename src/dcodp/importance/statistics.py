"""What the chosen criteria need to know, gathered over calibration batches, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dcodp.data.progress import track
from dcodp.errors import InputError
from dcodp.graph import CouplingGraph
from dcodp.importance.collector import Collector, Setting
from dcodp.importance.collectors import Contributions, collector_for
from dcodp.importance.criteria import criterion

Scores = dict[str, Tensor]  # group name → scores [channels] float64, on the CPU
LOCATIONS = 10  # ThiNet's


class Statistics:
    """What the chosen criteria know so far. Its `sums` and `batches` are all that an interrupted pass needs to go on.

    `aggregate` is explained in collector.py, `locations` are the sampled output positions per image (thinet, lasso).
    Raises InputError for an unknown criterion or an aggregate that means nothing to it.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: CouplingGraph,
        names: Sequence[str],
        *,
        aggregate: str = "sum",
        seed: int = 0,
        locations: int = LOCATIONS,
    ):
        self.network, self.graph = network, graph
        self.setting = Setting(network, graph, aggregate, seed, locations)
        self.criteria = {name: criterion(name) for name in names}
        self.collectors: dict[str, Collector] = {}
        self.batches = 0  # calibration batches seen
        shared: dict[Any, Collector] = {}
        for name, chosen in self.criteria.items():
            identity, make = collector_for(name, chosen, self.setting)
            self.collectors[name] = shared[identity] = shared.get(identity) or make()

    @property
    def distinct(self) -> dict[str, Collector]:
        """The collectors, each under the first criterion that uses it."""
        found: dict[Collector, str] = {}
        for name, collector in self.collectors.items():
            found.setdefault(collector, name)
        return {name: collector for collector, name in found.items()}

    def weights(self, attribute: str) -> set[str]:
        """The weights whose maps ("produced"), inputs ("read") or gradients ("differentiated") are wanted."""
        return {name for collector in self.distinct.values() for name in getattr(collector, attribute)}

    @property
    def needs_data(self) -> bool:
        return any(self.weights(a) for a in ("produced", "read", "differentiated"))

    @property
    def sums(self) -> dict[str, Tensor]:
        return {f"{name}: {key}": value for name, c in self.distinct.items() for key, value in c.sums.items()}

    def restore(self, sums: Mapping[str, Tensor], batches: int) -> None:
        """Go on from the `sums` and `batches` of another object of the same settings."""
        for key, value in sums.items():
            name, _, rest = key.partition(": ")
            self.distinct[name].sums[rest] = value
        self.batches = batches

    def contributions(self) -> dict[str, Tensor]:
        """What `rescale` takes: empty unless thinet or lasso is among the criteria."""
        return {k: v for c in self.distinct.values() if isinstance(c, Contributions) for k, v in c.grams().items()}

    def group_scores(self, name: str) -> Scores:
        """Scores by one of the criteria; groups about which it says nothing are absent (and are left unpruned).

        Raises InputError where the criterion needs calibration batches and has seen none.
        """
        chosen, collector = self.criteria[name], self.collectors[name]
        if (collector.produced or collector.read or collector.differentiated) and not self.batches:
            raise InputError(f"importance={name} looks at {chosen.needs}; give calibration batches")
        groups = track(self.graph.groups, f"ordering channels by {name}")
        scores = {group.name: collector.group_scores(chosen, group) for group in groups}
        return {group: score for group, score in scores.items() if score is not None}
