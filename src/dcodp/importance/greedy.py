"""Greedy removal by nuclear-norm coupling, re-scored after every removal.

One-shot selection of the m smallest couplings (Eq. 11) can remove both of two duplicate channels: each of them is
expendable only while the other stays. Removing one channel at a time and scoring the rest again cannot.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dcodp.calibration.inner_products import check_gram
from dcodp.errors import InputError
from dcodp.importance.nuclear import eigen, integral, quadrature

REFRESH = 32  # removals between two eigendecompositions, at most
CANCELLATION = 1e-6  # where a removal leaves less than this share of a term, rounding shows: decompose anew
TIE = 1e-9  # scores this close, relatively, are equal: the channel with the lower index goes first


def greedy_removal_order(
    gram: Tensor, remove: int | None = None, progress: Callable[[int], None] | None = None
) -> Tensor:
    """The order in which channels go: gram [C, C] float64, averaged over images → [remove] int64 (default all C).

    Each step removes the channel whose nuclear-norm coupling, among the channels still there, is smallest.
    `progress` is called with the number removed so far. Costs about 100 · C³ multiply-adds for all C.
    """
    check_gram(gram)
    channels = gram.shape[-1]
    remove = channels if remove is None else remove
    if gram.ndim != 2 or not 0 <= remove <= channels:
        raise InputError(f"cannot order {remove} channels by a Gram matrix {list(gram.shape)}; give [C, C] and 0…C")
    here = torch.arange(channels, device=gram.device)
    order = here[:0]
    while len(order) < remove:
        turn = _removed_in_turn(gram[here][:, here], min(REFRESH, remove - len(order)))
        order = torch.cat([order, here[turn]])
        here = here[~torch.isin(here, order)]
        if progress is not None:
            progress(len(order))
    return order


def _removed_in_turn(gram: Tensor, count: int) -> list[int]:
    """The next channels to go, 1 … count of them, from one eigendecomposition of gram [C, C].

    The scores of a set S need the diagonal of t(G_S + tI)⁻¹ at every node t = s². Taking channel p out of S takes
    column p, squared and divided by its diagonal entry, off that diagonal: a Cholesky factorisation pivoted by the
    scores, all nodes at a time, of which only the pivots' columns are ever formed.
    """
    values, vectors = eigen(gram)
    values = (values / values[-1].clamp(min=torch.finfo(torch.float64).tiny))[:, None]
    s, ds = quadrature(values)
    kept, gone = values / (values + s**2), s**2 / (values + s**2)  # [C, K]
    lost, left = vectors.square() @ kept, vectors.square() @ gone  # [C, K]
    removed: list[int] = []
    columns = left.new_empty(count, *left.shape)
    for step in range(count):
        channel = _smallest(integral(lost, left, ds), removed)
        column = vectors @ (vectors[channel, :, None] * gone)  # of t(G + tI)⁻¹
        column -= torch.einsum("mck,mk->ck", columns[:step], columns[:step, channel])
        columns[step] = column / left[channel].sqrt()
        taken = columns[step].square()
        lost, left, before = lost + taken, left - taken, left
        removed.append(channel)
        worn = left < CANCELLATION * before
        worn[removed] = False
        if bool(worn.any()):
            break
    return removed


def _smallest(scores: Tensor, removed: list[int]) -> int:
    """The lowest index among the smallest scores [C], up to TIE, of the channels not yet removed."""
    scores[removed] = torch.inf
    smallest = scores.min()
    return int((scores <= smallest + TIE * smallest.abs()).nonzero()[0])
