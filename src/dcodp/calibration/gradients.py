"""What the loss's gradients say of a layer's weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dcodp.calibration.statistic import (
    OfLayers,
    Part,
    Quantity,
    Subject,
    Sums,
    index_of,
    mean_of,
    rows,
    with_count,
)
from dcodp.graph import Group


def squared_gradient(weight: Tensor, grad: Tensor) -> Tensor:
    """[C, fan-in] twice → [C]"""
    return grad.double().square().sum(1)


@dataclass(frozen=True)
class GradientScores(OfLayers):
    """The mean over batches of a score of each weight and its gradient: `per_batch` takes [C, fan-in] twice to [C]."""

    per_batch: Callable[[Tensor, Tensor], Tensor] = squared_gradient
    of: Quantity = "total"
    sees: ClassVar[str] = "gradients"

    def differentiated(self, subject: Subject) -> Iterable[str]:
        return subject.sites(self.role)

    def quantity(self) -> Quantity:
        return self.of

    def on_gradient(self, sums: Sums, subject: Subject, name: str, weight: Tensor, grad: Tensor) -> None:
        for dim in {site.dim for _, site in subject.sites(self.role)[name]}:
            scores = self.per_batch(rows(weight.detach(), dim), rows(grad, dim))
            sums.add(f"{name} {dim}", with_count(scores[None]))

    def parts(self, sums: Sums, subject: Subject, group: Group) -> Iterator[Part]:
        for site in group.sites:
            key = f"{site.tensor} {site.dim}"
            if site.role == self.role and key in sums:
                yield Part(key, (mean_of(sums[key]),), index_of(site))
