"""ThiNet (Luo et al., ICCV 2017): remove the input channels that the next layer's outputs miss least.

Contributions X [N, C]: sample n is one output value of the next layer (one filter at one position of one image,
without the bias), X[n, c] the part of it that comes from input channel c; the row sum is the output. All that
selection and rescaling need is G = Xᵀ X [C, C], which can be summed over batches.
"""

import torch
from torch import Tensor

from dcodp.calibration.inner_products import check_gram
from dcodp.calibration.sampling import contribution_gram


def thinet_order(contributions: Tensor) -> Tensor:
    """The order in which channels go: contributions [N, C] → [C] int64, first removed first.

    Grows the removed set T by the channel k that minimises Σ_n (Σ_{j ∈ T ∪ k} X[n, j])², the squared error of the
    next layer's outputs, until no channel is left.
    """
    return thinet_order_from_gram(contribution_gram(contributions))


def thinet_order_from_gram(gram: Tensor) -> Tensor:
    """`thinet_order` from G = Xᵀ X [C, C] float64. Adding k to T adds G_kk + 2 Σ_{j ∈ T} G_jk: O(C²) in all."""
    check_gram(gram)
    growth = gram.diagonal().clone()
    order = []
    for _ in range(len(gram)):
        channel = int(growth.argmin())
        order.append(channel)
        growth += 2 * gram[channel]
        growth[order] = torch.inf
    return torch.tensor(order, device=gram.device)


def thinet_scales_from_gram(gram: Tensor, kept: Tensor) -> Tensor:
    """w = argmin ‖Y − X_S w‖₂ with Y the row sums: G = Xᵀ X [C, C] float64, kept indices S [K] → [K] float64.

    The next layer's weights on the kept channels are multiplied by w, in the order of `kept`; the solution is the one
    nearest to 1 where the kept channels are dependent.

    With removed channels P, Y − X_S w = X_P 1 − X_S (w − 1), so w = 1 + G_SS⁺ G_SP 1.
    """
    check_gram(gram)
    missing = gram[kept].sum(1) - gram[kept][:, kept].sum(1)
    return 1 + torch.linalg.pinv(gram[kept][:, kept], hermitian=True) @ missing
