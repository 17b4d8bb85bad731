"""Weights of other classes: the rows of the class layers that belong to classes of both are copied by name.

A class layer's outputs are [blocks, fixed + classes, values]: `fixed` leading rows mean the same whatever the classes
are (a background, a box), and each class has `values` of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

COCO_CATEGORIES = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # 91, gaps included, 0 = background
COCO_CLASSES = tuple(name for name in COCO_CATEGORIES if name not in ("__background__", "N/A"))  # the 80 in use
ALIASES = {  # VOC's names → COCO's; what differs in spaces alone (dining table, potted plant) needs none
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}
SHOWN = 5  # class names in a note


@dataclass(frozen=True)
class Layout:
    """How the outputs of a class layer are ordered."""

    blocks: int = 1  # for instance one per anchor
    fixed: int = 0
    values: int = 1  # for instance the four of a box

    def classes(self, outputs: int) -> int:
        """The number of classes that so many outputs stand for."""
        return outputs // (self.blocks * self.values) - self.fixed


@dataclass(frozen=True)
class Matches:
    """Which classes of a detector its weights know: (index here, index there)."""

    pairs: tuple[tuple[int, int], ...]
    classes: tuple[str, ...]
    trained: int  # classes of the weights
    notes: tuple[str, ...] = ()

    @property
    def fresh(self) -> float:
        """The share of the classes that start afresh."""
        return 1 - len(self.pairs) / len(self.classes)


def match(classes: Sequence[str], trained: Sequence[str] | None, count: int) -> Matches:
    """`classes` of the detector against the names of the `count` classes in its weights.

    As many classes of which none is known by name are taken to be the same ones in the same order. Weights of 80
    classes without names are taken for COCO's.
    """
    pairs = _by_name(classes, trained if trained is not None or count != len(COCO_CLASSES) else COCO_CLASSES)
    if count == len(classes) and (trained is None or not pairs):
        return Matches(tuple((k, k) for k in range(count)), tuple(classes), count, _renamed(classes, trained))
    same = count == len(classes) and all(here == there for here, there in pairs) and len(pairs) == count
    return Matches(pairs, tuple(classes), count, () if same else (_copied(classes, count, pairs),))


def _by_name(classes: Sequence[str], trained: Sequence[str] | None) -> tuple[tuple[int, int], ...]:
    there = {_canonical(name): index for index, name in reversed(list(enumerate(trained or ())))}
    keys = enumerate(map(_canonical, classes))
    return tuple((here, there[key]) for here, key in keys if key in there)


def _renamed(classes: Sequence[str], trained: Sequence[str] | None) -> tuple[str, ...]:
    if trained is None or tuple(trained) == tuple(classes):
        return ()
    renamed = [f"{old} for {new}" for old, new in zip(trained, classes, strict=True) if old != new]
    return (f"the weights name {_few(renamed)}; the class branch was kept",)


def _copied(classes: Sequence[str], count: int, pairs: tuple[tuple[int, int], ...]) -> str:
    """One line on what was copied, and what starts afresh."""
    known = {here for here, _ in pairs}
    fresh = [name for here, name in enumerate(classes) if here not in known]
    told = f"weights of {count} classes in a detector of {len(classes)}: "
    told += f"the class rows of {len(pairs)} were copied by name" if pairs else "no class is known by name"
    return told + (f", those of {_few(fresh)} start afresh" if fresh else "")


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + " …" * (len(names) > SHOWN)


def _canonical(name: str) -> str:
    """Case, spaces and hyphens do not tell classes apart, nor does the dialect of VOC."""
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    return ALIASES.get(key, key)


def with_rows(fresh: Tensor, trained: Tensor, layout: Layout, matches: Matches) -> Tensor:
    """`fresh`, a weight or bias of a class layer, with the fixed rows and those of matching classes out of `trained`.

    The outputs may lie in any one dimension, others being those of the inputs or 1. A layer of other inputs is returned
    as it was trained, for whoever loads it to refuse.
    """
    mine = fresh.clone().reshape(layout.blocks, layout.fixed + len(matches.classes), layout.values, -1)
    rows = layout.blocks, layout.fixed + matches.trained, layout.values, mine.shape[-1]
    if trained.numel() != math.prod(rows):
        return trained
    theirs = trained.to(fresh).reshape(rows)
    mine[:, : layout.fixed] = theirs[:, : layout.fixed]
    for here, there in matches.pairs:
        mine[:, layout.fixed + here] = theirs[:, layout.fixed + there]
    return mine.view_as(fresh)
