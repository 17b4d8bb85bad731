"""What is known of a net: the sums of all statistics that were asked for, and what they say of a coupling group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from dcodp.calibration.statistic import Part, Statistic, Subject, Sums
from dcodp.graph import CouplingGraph, Group

Wanted = Literal["produced", "read", "differentiated"]
LOCATIONS = 10  # sampled output positions per image and consumer: ThiNet's


class Evidence:
    """What the statistics know so far. `state()` and `batches` are all that an interrupted pass needs to go on."""

    def __init__(
        self,
        network: nn.Module,
        graph: CouplingGraph,
        statistics: Iterable[Statistic],
        *,
        seed: int = 0,
        locations: int = LOCATIONS,
    ):
        self.subject = Subject(network, graph, seed, locations)
        self.sums = {statistic: Sums() for statistic in statistics}
        self.batches = 0  # calibration batches seen
        self.remembered: dict[str, Any] = {}  # of the network, worked out once by whoever repairs it several times
        self._wanted = {
            kind: {statistic: set(getattr(statistic, kind)(self.subject)) for statistic in self.sums}
            for kind in ("produced", "read", "differentiated")
        }

    def wanted(self, kind: Wanted) -> set[str]:
        """The weights whose maps ("produced"), inputs ("read") or gradients ("differentiated") are wanted."""
        return set().union(*self._wanted[kind].values())

    def wanting(self, kind: Wanted, name: str) -> list[Statistic]:
        """The statistics that want to see this of the weight `name`."""
        return [statistic for statistic, names in self._wanted[kind].items() if name in names]

    def differentiates(self, statistic: Statistic) -> bool:
        return bool(self._wanted["differentiated"][statistic])

    def needs_data(self, statistic: Statistic) -> bool:
        return any(names[statistic] for names in self._wanted.values())

    @property
    def needs_batches(self) -> bool:
        return any(map(self.needs_data, self.sums))

    def parts(self, statistic: Statistic, group: Group) -> list[Part]:
        """What a statistic says of a group; nothing where it says nothing."""
        return list(statistic.parts(self.sums[statistic], self.subject, group))

    def state(self) -> dict[str, Tensor]:
        """All sums by name, to be given to `restore` of another object for the same statistics."""
        return {f"{s.name}: {key}": value for s, sums in self.sums.items() for key, value in sums.items()}

    def restore(self, state: Mapping[str, Tensor], batches: int) -> None:
        """Go on from the `state` and `batches` of another object; what it does not ask for is left out."""
        by_name = {statistic.name: sums for statistic, sums in self.sums.items()}
        for key, value in state.items():
            name, _, rest = key.partition(": ")
            if name in by_name:
                by_name[name][rest] = value
        self.batches = batches
