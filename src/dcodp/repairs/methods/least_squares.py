"""Least squares of the consumers: what a removed channel carried is taken over by those that stay.

For each consumer with input x, kept inputs K and removed ones P, x_P ≈ Rᵀ x_K + r by ridge regression from the second
moments, hence W_K += R W_P, and the constant W_P r goes into the bias or the batch norm behind (channel pruning's
reconstruction, He et al., ICCV 2017, with all kernel taps sharing one R). The ridge is the one whose error on held-out
images is least, and where not even that is better than the sliced weights, these stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dcodp.calibration.moments import InputMoments, fold
from dcodp.repairs.case import Case, Repair
from dcodp.repairs.constants import add_constant, norms_behind, takes_constant

RIDGES = (1e-14, 1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean of the moments' diagonal
ROUNDING = 1e-12
REFINED = 3  # times
GAIN = 1.0  # a fit is taken where its held-out error is below this share of the sliced weights'


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that lost inputs. `weight` is the dense one, inputs first, filters as the pruned one has them."""

    name: str
    dim: int
    weight: Tensor  # [C, F, k] float64
    group: Tensor  # [F], of the convolution's groups that each filter belongs to
    kept: Tensor  # [K] of the C inputs
    removed: Tensor  # [P]


@torch.no_grad()
def mend(case: Case) -> list[str]:
    """Changes the consumers' weights and constants in place; tells of those that were left as they are."""
    statistic, subject = InputMoments(), case.evidence.subject
    norms, left = norms_behind(case), []
    parameters = dict(case.pruned.named_parameters())
    for name, entries in subject.sites("in").items():
        consumer = _consumer(case, name, entries[0][1].dim)
        if consumer is None:
            continue
        moments = statistic.of(case.evidence.sums[statistic], name)
        if moments is None or not _refit(case, consumer, moments, parameters[name], norms):
            left.append(name.removesuffix(".weight"))
    if not left:
        return []
    return [f"least squares left {len(left)} layers as they were sliced: {', '.join(left)}"]


def _consumer(case: Case, name: str, dim: int) -> Consumer | None:
    """None where all inputs stay, or where the weight is no parameter of the pruned net."""
    keep = case.plan.keep.get(name, {})
    dense = case.evidence.subject.parameters.get(name)
    if dense is None or len(keep.get(dim, ())) in (0, dense.size(dim)):
        return None
    other, width = 1 - dim, fold(case.evidence.subject, name)
    filters = torch.tensor(keep.get(other, range(dense.size(other))), device=dense.device)
    kept = torch.tensor(keep[dim], device=dense.device)[::width] // width
    gone = torch.ones(dense.size(dim) // width, dtype=torch.bool, device=dense.device)
    gone[kept] = False
    weight = dense.detach().double().index_select(other, filters).movedim(dim, 0)[..., None].flatten(2)
    weight = weight.unflatten(0, (-1, width)).transpose(1, 2).flatten(2)  # taps: positions of a flattened map as well
    return Consumer(name, dim, weight, filters, kept, gone.nonzero().flatten())


def _refit(
    case: Case, consumer: Consumer, moments: tuple[Tensor, Tensor], small: Tensor, norms: dict[str, str]
) -> bool:
    """Whether the layer was refitted."""
    fit, test = (m / m[:, -1:, -1:] for m in moments)
    groups = len(fit)
    filters = case.evidence.subject.graph.shapes[consumer.name][1 - consumer.dim]
    of_group = consumer.group * groups // filters
    constant = takes_constant(case.pruned, consumer.name, norms)
    delta = torch.zeros_like(consumer.weight[consumer.kept])
    shift = consumer.weight.new_zeros(consumer.weight.size(1))
    better = False
    for number in range(groups):
        own = (of_group == number).nonzero().flatten()
        lost = consumer.weight[consumer.removed][:, own]  # [P, F, k]
        solved = best_fit(fit[number], test[number], consumer.kept, consumer.removed, lost, constant)
        if solved is not None:
            better = True
            delta[:, own] = torch.einsum("kp,pfx->kfx", solved[:-1], lost)
            shift[own] = torch.einsum("p,pfx->f", solved[-1], lost)
    if not better:
        return False
    moved = small.movedim(consumer.dim, 0)  # [K · width, F, …]
    width = len(moved) // len(delta)
    change = delta.unflatten(2, (width, -1)).transpose(1, 2).reshape(moved.shape)
    moved.add_(change.to(moved))
    if constant:
        add_constant(case.pruned, consumer.name, shift, norms)
    return True


def best_fit(fit: Tensor, test: Tensor, kept: Tensor, removed: Tensor, lost: Tensor, constant: bool) -> Tensor | None:
    """[K + 1, P]: how the kept inputs and the constant make up for the removed ones, None where they do not.

    fit, test: [C + 1, C + 1] mean second moments; lost: [P, F, k], the weights that read what was removed.
    """
    weighting = lost.flatten(1) @ lost.flatten(1).T  # [P, P], what an error in the removed inputs costs
    known = torch.cat([kept, kept.new_tensor([len(fit) - 1])])
    cross, inner = fit[known][:, removed], fit[known][:, known]
    if not constant:
        inner, cross = inner.clone(), torch.cat([cross[:-1], torch.zeros_like(cross[-1:])])
        inner[-1], inner[:, -1], inner[-1, -1] = 0, 0, 1
    scale = inner.diagonal()[:-1].mean()
    best, least = None, GAIN * float((weighting * test[removed][:, removed]).sum())
    for ridge in RIDGES:
        damped = inner.clone()
        damped.diagonal()[:-1] += ridge * scale
        solved, info = torch.linalg.solve_ex(damped, cross)
        if ridge <= ROUNDING:  # against rounding alone, so what it leaves is solved for again
            for _ in range(REFINED):
                solved = solved + torch.linalg.solve_ex(damped, cross - inner @ solved)[0]
        error = _error(test, known, removed, solved, weighting)
        if not int(info) and error < least:
            best, least = solved, error
    return best


def _error(test: Tensor, known: Tensor, removed: Tensor, solved: Tensor, weighting: Tensor) -> float:
    """The mean squared error in the outputs: tr(W · E[(x_P − Rᵀ x_K)(…)ᵀ])."""
    mixed = solved.T @ test[known][:, removed]
    left = test[removed][:, removed] - mixed - mixed.T + solved.T @ test[known][:, known] @ solved
    return float((weighting * left).sum())


REPAIR = Repair((InputMoments(),), mend)
