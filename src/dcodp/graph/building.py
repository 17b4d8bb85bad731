"""From labels to the coupling graph: components with the same sites become one group."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from dcodp.graph.cost import Count
from dcodp.graph.coupling import AttributeSize, CouplingGraph
from dcodp.graph.expressions import AttributeKey, leaves
from dcodp.graph.groups import FrozenLayer, Group, Site
from dcodp.graph.labels import Components, labels_of
from dcodp.graph.linear import Linear, dimension_form
from dcodp.graph.recording import Recorder
from dcodp.graph.roles import Roles
from dcodp.graph.stale import guess_unread


def build_graph(
    network: nn.Module, recorder: Recorder, components: Components, found: dict[AttributeKey, Linear]
) -> CouplingGraph:
    """Components with the same sites become one group; groups and layers in order of execution."""
    tensors = _read_tensors(recorder)
    order = {layer: i for i, layer in enumerate(recorder.operations.layers)}
    roles = Roles(tensors, recorder.applied, components)
    groups, channel_of = _groups(Places.of(tensors, components), roles, order, len(components.fixed))
    return CouplingGraph(
        groups=groups,
        frozen=_frozen(roles, order, channel_of) + _unread(recorder, tensors),
        parents=recorder.operations.parents(),
        shapes={name: tuple(t.shape) for name, t in [*network.named_parameters(), *network.named_buffers()]},
        aliases=_aliases(network),
        attributes=_attributes(recorder, components, found, channel_of),
        lengths={
            (name, key): len(value)
            for name, module in recorder.named_modules.items()
            for key, value in vars(module).items()
            if isinstance(value, list | tuple)
        },
        parameters=tuple(name for name, _ in network.named_parameters()),
        contractions=[spent.counted(components, channel_of) for spent in recorder.spent],
        maps=recorder.operations.maps,
        notes=list(recorder.notes),
    )


def _read_tensors(recorder: Recorder) -> dict[str, Tensor]:
    """Floating-point parameters and buffers that a forward pass read: nothing is known about the others."""
    twin = recorder.named_modules[""]
    named = [*twin.named_parameters(), *twin.named_buffers()]
    return {name: tensor for name, tensor in named if name in recorder.used}


def _aliases(network: nn.Module) -> dict[str, list[str]]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, tensor in [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]:
        names[id(tensor)].append(name)
    return {first: others for first, *others in names.values() if others}


@dataclass(frozen=True, eq=False)
class Places:
    """Every coordinate at which a removable component lies: three parallel arrays, sorted by component, then site."""

    sites: list[tuple[str, int]]  # tensor and dimension
    component: np.ndarray  # [n]
    site: np.ndarray  # [n] numbers into `sites`
    coordinate: np.ndarray  # [n]

    @classmethod
    def of(cls, tensors: dict[str, Tensor], components: Components) -> Places:
        sites: list[tuple[str, int]] = []
        columns: list[np.ndarray] = []
        for name, tensor in tensors.items():
            for dim, labels in enumerate(labels_of(tensor)):
                if labels is not None:
                    coordinates = np.flatnonzero(components.removable(labels))
                    owners = components.of[labels[coordinates]]
                    columns.append(np.stack([owners, np.full(len(owners), len(sites)), coordinates]))
                    sites.append((name, dim))
        merged = np.concatenate(columns, axis=1) if columns else np.zeros((3, 0), np.int64)
        component, site, coordinate = merged[:, np.argsort(merged[0], kind="stable")]
        return cls(sites, component, site, coordinate)


def _groups(places: Places, roles: Roles, order: dict[str, int], components: int) -> tuple[list[Group], np.ndarray]:
    """Groups, and for each component the running number of its channel (−1: it belongs to no group)."""
    starts = np.flatnonzero(np.diff(places.component, prepend=-1))
    ends = np.append(starts, len(places.component))[1:]
    alike: dict[bytes, list[int]] = defaultdict(list)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        alike[places.site[start:end].tobytes()].append(start)
    drafts = [_draft(places, np.array(rows), len(key) // 8, roles, order) for key, rows in alike.items()]
    channel_of = np.full(components, -1)
    groups, taken = [], Counter()
    for group, members, _ in sorted((d for d in drafts if d[0].channels > 1), key=lambda d: d[2]):
        taken[group.name] += 1
        name = group.name if taken[group.name] == 1 else f"{group.name}#{taken[group.name]}"
        channel_of[members] = np.arange(len(members)) + sum(g.channels for g in groups)
        groups.append(replace(group, name=name))
    return groups, channel_of


def _draft(
    places: Places, rows: np.ndarray, length: int, roles: Roles, order: dict[str, int]
) -> tuple[Group, np.ndarray, tuple[int, int]]:
    """The group of the components that start at `rows` of `places` (`length` coordinates each), and its rank."""
    rows = rows[np.argsort(places.coordinate[rows], kind="stable")]
    table = places.coordinate[rows[:, None] + np.arange(length)]  # [channels, length]
    numbers, begins = np.unique(places.site[rows[0] : rows[0] + length], return_index=True)
    sites = []
    for number, index in zip(numbers.tolist(), np.split(table, begins[1:], axis=1), strict=True):
        tensor, dim = places.sites[number]
        sites.append(Site(tensor, dim, index, roles.role(tensor, dim)))
    producers = {s.tensor.rpartition(".")[0] for s in sites if s.role == "out"}
    layers = tuple(sorted((p for p in producers if p in order), key=order.__getitem__))
    name = (layers[0] if layers else "") or sites[0].tensor
    first = next((s for s in sites if s.role == "out" and s.tensor.startswith(name)), sites[0])
    rank = (order[layers[0]] if layers else len(order), int(first.index[0, 0]))
    depthwise = tuple(layer for layer in layers if _is_depthwise(roles.tensors.get(f"{layer}.weight")))
    return Group(name, len(rows), layers, tuple(sites), depthwise), places.component[rows], rank


def _is_depthwise(weight: Tensor | None) -> bool:
    module: Any = getattr(weight, "_dcodp_module", None)
    return getattr(module, "groups", 1) == getattr(module, "in_channels", 0) > 1


def _frozen(roles: Roles, order: dict[str, int], channel_of: np.ndarray) -> list[FrozenLayer]:
    """Layers with filters that belong to no group; the most frequent reason counts."""
    components = roles.components
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for name, tensor in roles.tensors.items():
        layer = name.rpartition(".")[0]
        for dim, labels in enumerate(labels_of(tensor)):
            if layer not in order or roles.role(name, dim) != "out":
                continue
            owners = components.of[labels] if labels is not None else np.zeros(0, np.int64)
            stuck, counts = np.unique(owners[channel_of[owners] < 0], return_counts=True)
            for component, count in zip(stuck.tolist(), counts.tolist(), strict=True):
                reasons[layer][components.reason(component) or "tied to each other: all go or none"] += count
            if labels is None:
                reasons[layer]["a layer with one filter"] += tensor.size(dim)
    return [FrozenLayer(n, reasons[n].total(), reasons[n].most_common(1)[0][0]) for n in order if n in reasons]


def _unread(recorder: Recorder, read: dict[str, Tensor]) -> list[FrozenLayer]:
    """Layers whose weights no traced pass has used."""
    reason = "; ".join(["not used by the traced forward passes", *recorder.notes])
    twin = recorder.named_modules[""]
    return [
        FrozenLayer(name.rpartition(".")[0], len(parameter), reason)
        for name, parameter in twin.named_parameters()
        if name not in read and parameter.dim() > 1
    ]


def _attributes(
    recorder: Recorder, components: Components, found: dict[AttributeKey, Linear], channel_of: np.ndarray
) -> list[AttributeSize]:
    sizes: dict[AttributeKey, tuple[Linear, int]] = {}
    guesses: dict[AttributeKey, list[Linear]] = defaultdict(list)
    for following in recorder.followings:
        form = dimension_form(following.labels, len(following.labels), components).times(following.numerator)
        form = Linear(form.constant + following.plus, form.terms)
        key = (following.module, following.attribute, following.position)
        if following.certain:
            sizes[key] = (form, following.denominator)
        else:
            guesses[key].append(form)
    read = {leaf.key for origin in recorder.uses.read for leaf in leaves(origin) if hasattr(leaf, "key")}
    for key, forms in guesses.items():
        if key not in read and key not in found and all(f == forms[0] for f in forms):
            sizes.setdefault(key, (forms[0], 1))
    sizes.update({key: (form, 1) for key, form in found.items()})
    guessed, stale = guess_unread(recorder.named_modules, {k: f for k, f in sizes.items() if f[0].terms}, read)
    sizes.update(guessed)
    recorder.notes += stale
    return [
        AttributeSize(key, Count.of(form, channel_of), divisor) for key, (form, divisor) in sizes.items() if form.terms
    ]
