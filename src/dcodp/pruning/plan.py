"""A prune plan: which coordinates of which tensors stay, as plain JSON. Made by `select`, applied by `prune`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError
from dcodp.files import write_atomically

FORMAT = 1
Attributes = dict[str, dict[str, Any]]  # module → attribute → its new value


@dataclass
class PrunePlan:
    """Everything that changes in a model when channels go; independent of scores and of the graph.

    `keep[name][dim]` are the kept indices (ascending) of dimension `dim` of the parameter or buffer `name`
    (a state-dict name); `shapes[name]` is its dense shape. `attributes[module][attribute]` is the new value of an
    integer attribute (a list for list attributes, with None where an entry stays). `groups[name]` lists the kept
    channels of each coupling group.
    """

    keep: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)  # of each group before pruning
    settings: dict[str, Any] = field(default_factory=dict)  # how the selection was asked for

    @property
    def channel_ratio(self) -> float:
        """The share of all groups' channels that is removed."""
        total = sum(self.channels.values())
        return 1 - sum(map(len, self.groups.values())) / total if total else 0.0

    def then(self, other: PrunePlan) -> PrunePlan:
        """The plan of pruning twice, against the dense architecture: `other` was made for what this one leaves.

        Raises InputError where it was not.
        """
        return composed(self, other)

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> PrunePlan:
        if not isinstance(tree, dict) or tree.get("format") != FORMAT:
            raise InputError(f"not a prune plan of format {FORMAT}; write one with PrunePlan.to_json")
        fields = {key: value for key, value in tree.items() if key != "format"}
        fields["keep"] = {
            name: {int(d): list(map(int, k)) for d, k in dims.items()} for name, dims in fields["keep"].items()
        }
        return cls(**fields)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the plan; the file appears whole or not at all."""
        write_atomically(Path(path), json.dumps(self.to_dict(), separators=(",", ":")))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> PrunePlan:
        try:
            tree = json.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; give the path of a plan.json") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a prune plan: {error}") from error
        return cls.from_dict(tree)


def composed(first: PrunePlan, second: PrunePlan) -> PrunePlan:
    """Both prunings as one: indices of the second are looked up in what the first keeps."""
    _check_follows(first, second)
    keep = {name: {dim: list(kept) for dim, kept in dims.items()} for name, dims in first.keep.items()}
    for name, dims in second.keep.items():
        for dim, kept in dims.items():
            before = first.keep.get(name, {}).get(dim)
            keep.setdefault(name, {})[dim] = kept if before is None else [before[i] for i in kept]
    groups = {name: list(kept) for name, kept in first.groups.items()}
    for name, kept in second.groups.items():
        before = first.groups.get(name)
        groups[name] = list(kept) if before is None else [before[i] for i in kept]
    return PrunePlan(
        keep=keep,
        shapes={**second.shapes, **first.shapes},
        attributes=_latest_attributes(first.attributes, second.attributes),
        groups=groups,
        channels={**second.channels, **first.channels},
        settings={"steps": [*first.settings.get("steps", [first.settings]), second.settings]},
    )


def _check_follows(first: PrunePlan, second: PrunePlan) -> None:
    for name, shape in second.shapes.items():
        if name in first.shapes:
            left = [len(first.keep[name].get(dim, range(size))) for dim, size in enumerate(first.shapes[name])]
            if left != list(shape):
                raise InputError(
                    f"the second plan expects {name} of shape {list(shape)}, the first one leaves {left}; "
                    "make it for the net that the first one leaves"
                )
    for name, channels in second.channels.items():
        if name in first.groups and len(first.groups[name]) != channels:
            raise InputError(
                f"the second plan expects {channels} channels in the group {name}, the first one leaves "
                f"{len(first.groups[name])}; make it for the net that the first one leaves"
            )


def _latest_attributes(first: Attributes, second: Attributes) -> Attributes:
    """The second's values, of lists entry by entry; the first's where the second changes nothing."""
    merged = {module: dict(values) for module, values in first.items()}
    for module, values in second.items():
        for attribute, value in values.items():
            before = merged.setdefault(module, {}).get(attribute)
            if isinstance(value, list) and isinstance(before, list):
                value = [old if new is None else new for old, new in zip(before, value, strict=True)]
            merged[module][attribute] = value
    return merged
