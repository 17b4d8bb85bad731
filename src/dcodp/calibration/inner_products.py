"""Inner products of a layer's maps: A Aᵀ in float64, a channel per row of A, and what input they refuse."""

import torch
from torch import Tensor

from dcodp.errors import InputError

BLOCK = 2**22  # float64 numbers in one block of images (32 MB)
PIECE = 2**20  # float64 numbers converted at a time for a Gram matrix: small enough to stay in the cache


def gram(maps: Tensor) -> Tensor:
    """A Aᵀ of every image: maps [B, C, H, W], any float dtype → [B, C, C] float64, converted piece by piece."""
    return torch.cat([gram_of_rows(rows) for rows in blocks(maps)])


def check_gram(gram: Tensor) -> None:
    """Raises InputError where `gram` is not [..., C, C] float64 with finite entries."""
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2] or gram.dtype != torch.float64 or not gram.numel():
        raise InputError(f"a Gram matrix is [..., C, C] float64, not {list(gram.shape)} {gram.dtype}; use gram(maps)")
    if not bool(torch.isfinite(gram).all()):
        raise InputError("the Gram matrix holds NaN or infinite values; check the weights and the calibration images")


def rows_of(maps: Tensor) -> Tensor:
    """maps [B, C, H, W] → [B, C, N], a view where it can be."""
    if maps.ndim != 4 or not maps.is_floating_point() or not maps.numel():
        raise InputError(f"maps are [B, C, H, W] floats, none of them 0, not {list(maps.shape)} {maps.dtype}")
    return maps.detach().flatten(2)


def blocks(maps: Tensor) -> tuple[Tensor, ...]:
    """maps [B, C, H, W] → rows [b, C, N] of a few images each, so that what is made of them stays near BLOCK."""
    rows = rows_of(maps)
    channels = rows.shape[1]
    return rows.split(max(1, BLOCK // (channels * (channels + 256))))  # 256: about the number of quadrature nodes


def refuse_unbounded(squares: Tensor) -> None:
    """squares [B, C]: the Gram matrices' diagonals, where NaN and infinity anywhere in a channel end up."""
    if bool((bad := ~torch.isfinite(squares)).any()):
        image, channel = bad.nonzero()[0].tolist()
        raise InputError(
            f"maps hold NaN or infinite values (first in image {image}, channel {channel}); "
            "check the weights and the calibration images"
        )


def gram_of_rows(rows: Tensor) -> Tensor:
    """rows [B, C, N] → [B, C, C] float64; about PIECE numbers are converted at a time."""
    images, channels, _ = rows.shape
    total = torch.zeros(images, channels, channels, dtype=torch.float64, device=rows.device)
    for part in rows.split(max(512, PIECE // (images * channels)), dim=2):
        part = part.double()
        total.baddbmm_(part, part.mT)
    refuse_unbounded(total.diagonal(dim1=1, dim2=2))
    return total
