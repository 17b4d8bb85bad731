"""Coupling groups: channels that share all their sites, and the layers whose channels belong to none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Site:
    """Where a group's channels lie in one dimension of one tensor."""

    tensor: str  # state-dict name
    dim: int
    index: np.ndarray  # [channels, m]: channel c occupies the m coordinates index[c]
    role: str  # "out": a layer's filters; "in": a consumer's input channels; "vector": biases, norms


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that are removed one by one, each at all its sites."""

    name: str
    channels: int
    layers: tuple[str, ...]  # the layers whose filters these are, in order of execution
    sites: tuple[Site, ...]
    depthwise: tuple[str, ...] = ()  # those of the layers that filter each channel by itself

    @property
    def coupled(self) -> bool:
        """Whether filters of more than one layer go together (the paper's inter-layer coupling).

        Depthwise layers do not count: their channels are their input's, and every method prunes them with it.
        """
        return len(self.layers) - len(self.depthwise) > 1

    @property
    def consumers(self) -> tuple[str, ...]:
        """The layers that read these channels."""
        return tuple(dict.fromkeys(s.tensor.rpartition(".")[0] for s in self.sites if s.role == "in"))


@dataclass(frozen=True)
class FrozenLayer:
    """A layer with filters that cannot be removed, and why."""

    layer: str
    channels: int  # how many of its filters
    reason: str
