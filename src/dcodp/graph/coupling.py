"""Coupling groups: channels that share all their sites, with everything that changes when one of them goes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from dcodp.graph.explain import as_text
from dcodp.graph.labels import Components, labels_of
from dcodp.graph.sizes import AttributeKey, Linear, dimension_form, leaves

if TYPE_CHECKING:
    from dcodp.graph.recording import Recorder


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

    @property
    def coupled(self) -> bool:
        """Whether filters of more than one layer go together (the paper's inter-layer coupling)."""
        return len(self.layers) > 1

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


@dataclass(frozen=True, eq=False)
class AttributeSize:
    """A module attribute whose value follows the number of kept channels: constant + Σ coefficient·kept."""

    key: AttributeKey
    constant: int
    channel: np.ndarray  # [n] numbers of channels, counted through all groups in order
    coefficient: np.ndarray  # [n]
    divisor: int = 1


@dataclass(eq=False)
class CouplingGraph:
    """The result of a trace: what can be removed from a model, and what goes with it."""

    groups: list[Group]
    frozen: list[FrozenLayer]
    parents: dict[str, list[str]]  # Algorithm 1: layer → parent layers
    shapes: dict[str, tuple[int, ...]]  # of every parameter and buffer
    aliases: dict[str, list[str]]  # other names of a shared tensor
    attributes: list[AttributeSize] = field(default_factory=list)
    lengths: dict[tuple[str, str], int] = field(default_factory=dict)  # of list attributes among them

    def explain(self) -> str:
        """A table: every group with its channels, layers, parents and readers; every frozen layer with the reason."""
        return as_text(self)

    def group_of(self, layer: str) -> list[Group]:
        """The groups that a layer's filters belong to."""
        return [g for g in self.groups if layer in g.layers]


def build_graph(
    model: nn.Module, recorder: Recorder, components: Components, found: dict[AttributeKey, Linear]
) -> CouplingGraph:
    """Components with the same sites become one group; groups and layers in order of execution."""
    tensors = _unique_tensors(recorder)
    order = {layer: i for i, layer in enumerate(recorder.operations.layers)}
    members = _members(tensors, components)
    groups, channel_of = _groups(members, tensors, order)
    return CouplingGraph(
        groups=groups,
        frozen=_frozen(recorder, tensors, components, order),
        parents=recorder.operations.parents(),
        shapes={name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]},
        aliases=_aliases(model),
        attributes=_attributes(recorder, components, found, channel_of),
        lengths={
            (name, key): len(value)
            for name, module in recorder.named_modules.items()
            for key, value in vars(module).items()
            if isinstance(value, list | tuple)
        },
    )


def _unique_tensors(recorder: Recorder) -> dict[str, Any]:
    """Floating-point parameters and buffers that the forward pass read: nothing is known about the others."""
    twin = recorder.named_modules[""]
    named = [*twin.named_parameters(), *twin.named_buffers()]
    return {name: tensor for name, tensor in named if name in recorder.used}


def _aliases(model: nn.Module) -> dict[str, list[str]]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        names[id(tensor)].append(name)
    return {first: others for first, *others in names.values() if others}


Members = dict[int, dict[tuple[str, int], np.ndarray]]  # component → site → its coordinates


def _members(tensors: dict[str, Any], components: Components) -> Members:
    members: Members = defaultdict(dict)
    for name, tensor in tensors.items():
        for dim, labels in enumerate(labels_of(tensor)):
            if labels is None:
                continue
            coordinates = np.flatnonzero(components.removable(labels))
            names = components.of[labels[coordinates]]
            order = np.argsort(names, kind="stable")
            starts = np.flatnonzero(np.diff(names[order], prepend=-1))
            for part in np.split(coordinates[order], starts[1:]) if len(order) else []:
                members[int(components.of[labels[part[0]]])][name, dim] = part
    return members


def _role(name: str, dim: int, module: Any, rank: int) -> str:
    """What a coordinate of a parameter means to its layer."""
    if rank < 2 or not name.endswith("weight"):
        return "vector"
    outer = 1 if getattr(module, "transposed", False) and getattr(module, "groups", 1) == 1 else 0
    return "out" if dim == outer else "in"


def _groups(members: Members, tensors: dict[str, Any], order: dict[str, int]) -> tuple[list[Group], dict[int, int]]:
    """Groups, and the running number of each component's channel."""
    by_signature: dict[Any, list[int]] = defaultdict(list)
    for component, sites in members.items():
        by_signature[tuple((site, len(index)) for site, index in sites.items())].append(component)
    drafts = [_draft(signature, parts, members, tensors, order) for signature, parts in by_signature.items()]
    drafts = sorted((d for d in drafts if d[0].channels > 1), key=lambda d: d[2])
    groups, channel_of, taken = [], {}, defaultdict(int)
    for group, parts, _ in drafts:
        taken[group.name] += 1
        name = group.name if taken[group.name] == 1 else f"{group.name}#{taken[group.name]}"
        channel_of.update({component: len(channel_of) + i for i, component in enumerate(parts)})
        groups.append(Group(name, group.channels, group.layers, group.sites))
    return groups, channel_of


def _draft(
    signature: Any, parts: list[int], members: Members, tensors: dict[str, Any], order: dict[str, int]
) -> tuple[Group, list[int], Any]:
    first_site = signature[0][0]
    parts = sorted(parts, key=lambda c: int(members[c][first_site][0]))
    modules = {name: tensors[name] for (name, _), _ in signature}
    sites = tuple(
        Site(name, dim, np.stack([members[c][name, dim] for c in parts]), _site_role(name, dim, modules[name]))
        for (name, dim), _ in signature
    )
    producers = {s.tensor.rpartition(".")[0] for s in sites if s.role == "out"}
    layers = tuple(sorted((p for p in producers if p in order), key=order.__getitem__))
    name = layers[0] if layers else sites[0].tensor
    position = order[layers[0]] if layers else len(order)
    first = next((s for s in sites if s.role == "out" and s.tensor.startswith(name)), sites[0])
    return Group(name, len(parts), layers, sites), parts, (position, int(first.index[0, 0]))


def _site_role(name: str, dim: int, tensor: Any) -> str:
    return _role(name, dim, getattr(tensor, "_dcodp_module", None), tensor.dim())


def _frozen(
    recorder: Recorder, tensors: dict[str, Any], components: Components, order: dict[str, int]
) -> list[FrozenLayer]:
    frozen = {}
    for name, tensor in tensors.items():
        layer = name.rpartition(".")[0]
        for dim, labels in enumerate(labels_of(tensor)):
            if layer in order and labels is not None and _site_role(name, dim, tensor) == "out":
                fixed = ~components.removable(labels)
                if fixed.any():
                    reason = components.reason[int(components.of[labels[fixed][0]])]
                    frozen[layer] = FrozenLayer(layer, int(fixed.sum()), reason)
    return sorted(frozen.values(), key=lambda f: order[f.layer])


def _attributes(
    recorder: Recorder, components: Components, found: dict[AttributeKey, Linear], channel_of: dict[int, int]
) -> list[AttributeSize]:
    sizes: dict[AttributeKey, tuple[Linear, int]] = {}
    guesses: dict[AttributeKey, list[Linear]] = defaultdict(list)
    for following in recorder.followings:
        form = dimension_form(following.labels, len(following.labels), components).times(following.numerator)
        key = (following.module, following.attribute, None)
        if following.certain:
            sizes[key] = (form, following.denominator)
        else:
            guesses[key].append(form)
    read = {leaf.key for origin in recorder.reads for leaf in leaves(origin) if hasattr(leaf, "key")}
    for key, forms in guesses.items():
        if key not in read and key not in found and all(f == forms[0] for f in forms):
            sizes.setdefault(key, (forms[0], 1))
    sizes.update({key: (form, 1) for key, form in found.items()})
    return [_attribute(key, form, divisor, channel_of) for key, (form, divisor) in sizes.items() if form.terms]


def _attribute(key: AttributeKey, form: Linear, divisor: int, channel_of: dict[int, int]) -> AttributeSize:
    """Components outside every group (single channels) are always kept."""
    free = {c: k for c, k in form.terms.items() if c in channel_of}
    constant = form.constant + sum(k for c, k in form.terms.items() if c not in channel_of)
    return AttributeSize(
        key,
        constant,
        np.array([channel_of[c] for c in free], np.int64),
        np.array(list(free.values()), np.int64),
        divisor,
    )
