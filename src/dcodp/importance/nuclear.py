"""Nuclear-norm coupling (paper Eq. 10, the channel independence of CHIP), exact and for all channels at once.

Let A [C, N] hold one image's maps of one layer, a channel per row. The coupling of channel i,

    CP_i = ‖A‖_* − ‖M_i ⊙ A‖_*   (M_i sets row i to zero),

is by definition C + 1 singular value decompositions. With G = A Aᵀ = Q Λ Qᵀ, whose principal submatrix without i
belongs to M_i ⊙ A, det(G_{−i} + tI) / det(G + tI) = [(G + tI)⁻¹]_ii and √λ = (1/2π) ∫₀^∞ log(1 + λ/t) t^(−1/2) dt give

    CP_i = (1/π) ∫₀^∞ −log left_i(s) ds,   left_i(s) = Σ_j q_ij² s²/(λ_j + s²),

so one eigendecomposition serves all channels. Channels with CP near 0 are linear combinations of the others.
"""

import math

import torch
from torch import Tensor

from dcodp.errors import InputError

STEP = 0.4  # of the trapezoid rule in x = log(s/σ_max): the integrand is analytic for |Im x| < π/2, error e^(−π²/STEP)
TAIL = 28.0  # how far the rule reaches beyond the largest and the smallest singular value, in x; the rest is < 1e-11
EPS = torch.finfo(torch.float64).eps
DROP = 1e-13  # eigenvalues of a Gram matrix below this share of the largest are rounding, taken as 0
TRUST = 1e-8  # estimated relative error above which an image is redone without forming a Gram matrix
SILENT = 1e-28  # squared norm of a channel, relative to λ_max, below which float64 cannot tell it from zero
CHUNK = 2**22  # float64 numbers held at a time (32 MB)


def nuclear_coupling(maps: Tensor) -> Tensor:
    """CP of every channel in every image, Eq. 10: maps [B, C, H, W], any float dtype and device → [B, C] float64.

    One eigendecomposition per image, in float64. An image whose Gram matrix is too ill-conditioned for that (its
    condition is the square of the maps') is decomposed from the maps themselves, which is about three times slower.
    Raises InputError where the maps are not four-dimensional floats, are empty, or hold NaN or infinite values.
    """
    rows = _rows(maps)
    images = max(1, CHUNK // (rows.shape[1] * (rows.shape[1] + 256)))  # 256: about the number of quadrature nodes
    return torch.cat([_couple_images(part) for part in rows.split(images)])


def nuclear_coupling_from_gram(gram: Tensor) -> Tensor:
    """CP of every channel from G = A Aᵀ alone: symmetric positive semi-definite [..., C, C] float64 → [..., C] float64.

    For a mean of Gram matrices over images, A is the images' maps side by side (over √images). The error is up to
    1e-7 of the largest singular value, because G carries the squares; `nuclear_coupling` has the maps and is exact.
    """
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2] or gram.dtype != torch.float64 or not gram.numel():
        raise InputError(f"a Gram matrix is [..., C, C] float64, not {list(gram.shape)} {gram.dtype}; use gram(maps)")
    flat = gram.reshape(-1, *gram.shape[-2:])
    _refuse_unbounded(flat.diagonal(dim1=-2, dim2=-1))
    return coupling_of_spectrum(*_spectrum_of_gram(flat)).reshape(gram.shape[:-1])


def gram(maps: Tensor) -> Tensor:
    """A Aᵀ of every image: maps [B, C, H, W], any float dtype → [B, C, C] float64, converted piece by piece."""
    return _gram(_rows(maps))


def direct_nuclear_coupling(maps: Tensor) -> Tensor:
    """Eq. 10 by definition, C + 1 singular value decompositions per image, as CHIP's authors compute it (they in
    float32): maps [B, C, H, W] → [B, C] float64. For checks and comparisons; slow."""
    rows = _rows(maps).double()
    whole = torch.linalg.svdvals(rows).sum(-1)
    coupling = torch.empty(rows.shape[:2], dtype=torch.float64, device=rows.device)
    for channel in range(rows.shape[1]):
        without = rows.clone()
        without[:, channel] = 0
        coupling[:, channel] = whole - torch.linalg.svdvals(without).sum(-1)
    return coupling


def coupling_of_spectrum(values: Tensor, weights: Tensor) -> Tensor:
    """The integral: eigenvalues λ [B, R] ≥ 0, exact zeros for the null space, and weights q² [B, C, R] → CP [B, C].

    lost = 1 − left is summed on its own, and whichever of the two is small enters its logarithm: −log(left) alone
    is wrong at large s, where left rounds to 1 under a huge ds; −log1p(−lost) alone at small s.
    """
    largest = values.amax(-1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    values = values / largest
    s = quadrature_nodes(values)
    kept = values[..., None] / (values[..., None] + s**2)  # [B, R, K]
    lost, left = weights @ kept, weights @ (1 - kept).where(kept < 0.5, s**2 / (values[..., None] + s**2))
    integrand = torch.where(lost < 0.5, -torch.log1p(-lost), -torch.log(left))  # [B, C, K]
    return integrand @ s * (STEP / math.pi) * largest.sqrt()


def quadrature_nodes(values: Tensor) -> Tensor:
    """Nodes s [K] for eigenvalues relative to the largest (any shape); ∫ f ds ≈ STEP · Σ f(s_k) s_k."""
    smallest = torch.where(values > 0, values, 1.0).amin().item()
    below = math.ceil((TAIL - 0.5 * math.log(min(smallest, 1.0))) / STEP)
    return (STEP * torch.arange(-below, round(TAIL / STEP) + 1, dtype=torch.float64, device=values.device)).exp()


def _rows(maps: Tensor) -> Tensor:
    """maps [B, C, H, W] → [B, C, N], a view where it can be; float64 maps are scaled only later."""
    if maps.ndim != 4 or not maps.is_floating_point() or not maps.numel():
        raise InputError(f"maps are [B, C, H, W] floats, none of them 0, not {list(maps.shape)} {maps.dtype}")
    return maps.detach().flatten(2)


def _refuse_unbounded(squares: Tensor) -> None:
    """squares [B, C]: the Gram matrices' diagonals, where NaN and infinity anywhere in a channel end up."""
    if bool((bad := ~torch.isfinite(squares)).any()):
        image, channel = bad.nonzero()[0].tolist()
        raise InputError(
            f"maps hold NaN or infinite values (first in image {image}, channel {channel}); "
            "check the weights and the calibration images"
        )


def _gram(rows: Tensor) -> Tensor:
    """rows [B, C, N] → [B, C, C] float64; at most CHUNK numbers are converted at a time."""
    images, channels, positions = rows.shape
    total = torch.zeros(images, channels, channels, dtype=torch.float64, device=rows.device)
    for part in rows.split(max(1, min(positions, CHUNK // (images * channels))), dim=2):
        part = part.double()
        total.baddbmm_(part, part.mT)
    _refuse_unbounded(total.diagonal(dim1=1, dim2=2))
    return total


def _couple_images(rows: Tensor) -> Tensor:
    """rows [B, C, N] → CP [B, C]."""
    scale = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    if rows.dtype == torch.float64:  # squares of float64 can overflow or vanish; those of narrower floats cannot
        scale = rows.abs().amax((1, 2))
        rows = rows / torch.where(scale > 0, scale, 1.0)[:, None, None]
    few_positions = rows.shape[2] < rows.shape[1]
    values, weights = _spectrum_of_positions(rows.double()) if few_positions else _spectrum_of_gram(_gram(rows))
    coupling = coupling_of_spectrum(values, weights)
    for image in (_estimated_error(values, weights, coupling, rows.shape[2]) > TRUST).nonzero().flatten().tolist():
        coupling[image] = coupling_of_spectrum(*_spectrum_of_rows(rows[image : image + 1].double()))[0]
    return coupling * scale[:, None]


def _spectrum_of_gram(gram: Tensor) -> tuple[Tensor, Tensor]:
    """gram [B, C, C] → eigenvalues [B, C], rounding set to exact zeros, and squared eigenvectors [B, C, C]."""
    values, vectors = torch.linalg.eigh(gram)
    return torch.where(values > DROP * values[:, -1:], values, 0.0), vectors.square()


def _spectrum_of_positions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same from Aᵀ A where there are fewer positions than channels: rows [B, C, N] float64 → [B, N+1], [B, C, N+1].

    With Aᵀ A = V Λ Vᵀ, q_ij² λ_j = (A V)_ij². The last column is the null space: eigenvalue 0, the missing weight.
    """
    _refuse_unbounded(rows.square().sum(2))
    values, vectors = torch.linalg.eigh(rows.mT @ rows)
    values = torch.where(values > DROP * values[:, -1:], values, 0.0)
    weights = torch.where(values > 0, 1 / values, 0.0)[:, None] * (rows @ vectors).square()
    null = (1 - weights.sum(2, keepdim=True)).clamp(min=0)
    return torch.nn.functional.pad(values, (0, 1)), torch.cat([weights, null], dim=2)


def _spectrum_of_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same without squaring the condition: rows [B, C, N] float64 → [B, C], [B, C, C], by singular values."""
    channels, positions = rows.shape[1:]
    if positions > channels:  # A = Rᵀ Q with orthonormal Q rows: R alone holds the singular values and left vectors
        rows = torch.linalg.qr(rows.mT, mode="r").R.mT
    vectors, sigma, _ = torch.linalg.svd(rows)
    sigma = torch.where(sigma > channels * EPS * sigma[:, :1], sigma, 0.0)
    return torch.nn.functional.pad(sigma.square(), (0, channels - sigma.shape[1])), vectors.square()


def _estimated_error(values: Tensor, weights: Tensor, coupling: Tensor, positions: int) -> Tensor:
    """An upper estimate of CP's largest relative error after a Gram matrix: [B, R], [B, C, R], [B, C] → [B].

    Rounding shifts eigenvalues by a few EPS·λ_max, hence a singular value σ by that over 2σ; eigenvalues below DROP
    hide singular values up to √DROP·σ_max, unless silent channels or too few positions account for them.
    """
    largest = values.amax(-1)
    sounding = (weights @ values[..., None])[..., 0] > SILENT * largest[:, None]
    hidden = (values > 0).sum(-1) < sounding.sum(-1).clamp(max=positions)
    smallest = torch.where(values > 0, values, torch.inf).amin(-1).sqrt()
    error = torch.where(hidden, (DROP * largest).sqrt(), 2 * EPS * largest / smallest)
    return error / torch.where(sounding, coupling, torch.inf).amin(-1)
