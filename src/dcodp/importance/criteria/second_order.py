"""What consumers lose when a channel goes and the others stand in for it: Σ ‖W_i‖² / [(G + λ)⁻¹]_ii over consumers.

W_i are the weights that read input i, G the second moments of the consumer's input with a constant: 1 / [G⁻¹]_ii is
what is left of input i when all other inputs have explained what they can (Optimal Brain Surgeon's saliency, Hassibi
and Stork, NIPS 1992, for whole inputs). Scores are errors of outputs, so those of different groups can be compared.
"""

import torch
from torch import Tensor

from dcodp.calibration.moments import InputMoments
from dcodp.importance.criterion import Criterion

RIDGE = 1e-2  # λ, relative to the mean of G's diagonal


def lost_by_consumer(weight: Tensor, moments: Tensor) -> Tensor:
    """weight [C, F · k]; moments [groups, C + 1, C + 1], means over positions → [C] float64."""
    diagonal = moments.diagonal(dim1=1, dim2=2)[:, :-1]
    ridge = RIDGE * diagonal.mean(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    damped = moments.clone()
    damped.diagonal(dim1=1, dim2=2)[:, :-1] += ridge
    unexplained = 1 / torch.linalg.inv(damped).diagonal(dim1=1, dim2=2)[:, :-1] - ridge  # [groups, C]
    by_group = weight.square().unflatten(1, (len(moments), -1)).sum(2).mT  # filters lie group by group
    return (by_group * unexplained.clamp(min=0)).sum(0)


CRITERION = Criterion((InputMoments(),), lost_by_consumer, scale="net", aggregates=("sum",))
