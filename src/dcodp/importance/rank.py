"""Ranks: of each map (HRank) and of a layer's channels together (the paper's Eq. 7)."""

import torch
from torch import Tensor

from dcodp.calibration.inner_products import gram
from dcodp.errors import InputError

DEPENDENT = 1e-6  # singular values (of rows of length 1) and null-space weights below this count as 0


def average_rank(maps: Tensor) -> Tensor:
    """HRank (Lin et al., CVPR 2020) as its authors coded it: maps [B, C, H, W], after the activation → [C] float64.

    The mean over images of `map_ranks`; over several batches, average weighted by their images.
    """
    return map_ranks(maps).mean(0)


def map_ranks(maps: Tensor) -> Tensor:
    """Each map's matrix rank: maps [B, C, H, W] → [B, C] float64.

    Torch's default tolerance for the maps' dtype (half precision is computed in float32): σ_max · max(H, W) · eps.
    Raises InputError where the maps are not four-dimensional floats, are empty, or hold NaN or infinite values.
    """
    if maps.ndim != 4 or not maps.is_floating_point() or not maps.numel():
        raise InputError(f"maps are [B, C, H, W] floats, none of them 0, not {list(maps.shape)} {maps.dtype}")
    if not bool(torch.isfinite(maps).all()):
        raise InputError("maps hold NaN or infinite values; check the weights and the calibration images")
    wide = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
    return torch.linalg.matrix_rank(wide).double()


def rank_coupling(maps: Tensor) -> Tensor:
    """CP_i = Rank(A) − Rank(M_i ⊙ A), Eq. 7: maps [B, C, H, W] → [B, C] float64, each 0 or 1.

    Zeroing row i lowers the rank exactly if no dependency among the rows involves it: if e_i has no part in the null
    space of A Aᵀ. Rows are scaled to length 1 first, which changes no rank and keeps weak channels from looking
    dependent. The tolerance DEPENDENT is far above float32's rounding of the maps.
    """
    squares = gram(maps)
    lengths = squares.diagonal(dim1=1, dim2=2).sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    values, vectors = torch.linalg.eigh(squares * inverse[:, :, None] * inverse[:, None, :])
    null = values <= DEPENDENT**2 * values[:, -1:]
    null_weight = (vectors.square() * null[:, None, :]).sum(2)
    return (null_weight < DEPENDENT).double()
