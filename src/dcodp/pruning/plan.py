"""A prune plan: which coordinates of which tensors stay, as plain JSON. Made by `select`, applied by `prune`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dcodp.errors import InputError

FORMAT = 1


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
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self.to_dict(), separators=(",", ":")))
        os.replace(temporary, path)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> PrunePlan:
        try:
            tree = json.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; give the path of a plan.json") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a prune plan: {error}") from error
        return cls.from_dict(tree)
