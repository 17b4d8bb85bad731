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

from dcodp.calibration.inner_products import blocks, gram_of_rows, refuse_unbounded, rows_of

STEP = 0.3  # of the trapezoid rule in u, see `quadrature`; the error falls like e^(−π²/STEP)
TAIL = (
    32.0  # how far the rule reaches beyond the largest and the smallest singular value, in log s: the rest is e^−TAIL
)
BEND = 2.0  # where, beyond them and in u, the rule begins to take larger and larger steps in log s
TALL = 32  # positions per channel in one part of a QR decomposition
EPS = torch.finfo(torch.float64).eps
DROP = 1e-13  # eigenvalues of a Gram matrix below this share of the largest are rounding, taken as 0
TRUST = 1e-8  # estimated relative error above which an image is redone without forming a Gram matrix
SILENT = 1e-28  # squared norm of a channel, relative to λ_max, below which float64 cannot tell it from zero
UNSURE = 1e-6  # null-space weight below which 1 − Σ q² is not accurate enough


def nuclear_coupling(maps: Tensor) -> Tensor:
    """CP of every channel in every image, Eq. 10: maps [B, C, H, W], any float dtype and device → [B, C] float64.

    One eigendecomposition per image, in float64. An image whose Gram matrix is too ill-conditioned for that (its
    condition is the square of the maps') is decomposed from the maps themselves, which is about three times slower.
    Raises InputError where the maps are not four-dimensional floats, are empty, or hold NaN or infinite values.
    """
    return torch.cat([_couple_images(rows) for rows in blocks(maps)])


def direct_nuclear_coupling(maps: Tensor) -> Tensor:
    """Eq. 10 by definition, C + 1 singular value decompositions per image, as CHIP's authors compute it (they in
    float32): maps [B, C, H, W] → [B, C] float64. For checks and comparisons; slow."""
    rows = rows_of(maps).double()
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
    s, ds = quadrature(values)
    resolvent = 1 / (values[..., None] + s**2)  # [B, R, K]
    lost, left = weights @ (values[..., None] * resolvent), weights @ (s**2 * resolvent)  # [B, C, K]
    return integral(lost, left, ds) * largest.sqrt()


def integral(lost: Tensor, left: Tensor, ds: Tensor) -> Tensor:
    """(1/π) ∫ −log(left) ds from `lost` and `left` = 1 − `lost` [..., K] at the nodes, of weights ds [K] → [...]."""
    return torch.where(lost < 0.5, -torch.log1p(-lost), -torch.log(left)) @ ds / math.pi


def quadrature(values: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes s and weights, both [K], for eigenvalues relative to the largest (any shape): ∫₀^∞ f ds ≈ Σ weight · f(s).

    The trapezoid rule in u, where log s = u + e^(u − BEND) − e^(low − BEND − u) and low is the smallest log σ. Between
    low and 0, where the integrand's branch points lie (π/2 above and below the real line), log s is nearly u; beyond,
    it grows exponentially, and the tails, which fall like e^(−|log s|), take a few nodes instead of a hundred. With a
    null space (zeros among the values) branch points may lie anywhere below low, and the rule stays even there.
    """
    smallest, least = torch.stack([torch.where(values > 0, values, 1.0).amin(), values.amin()]).tolist()
    low, reach = 0.5 * math.log(smallest), BEND + math.log(TAIL)
    low, first = (low, low - reach) if least > 0 else (low - TAIL, low - TAIL)
    steps = range(math.floor(first / STEP), math.ceil(reach / STEP) + 1)
    u = STEP * torch.arange(steps.start, steps.stop, dtype=torch.float64, device=values.device)
    up, down = (u - BEND).exp(), (low - BEND - u).exp()
    s = (u + up - down).exp()
    return s, STEP * (1 + up + down) * s


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """gram [..., C, C] float64 → eigenvalues [..., C], exact zeros for mere rounding, and eigenvectors [..., C, C]."""
    values, vectors = torch.linalg.eigh(gram)
    return torch.where(values > DROP * values[..., -1:], values, 0.0), vectors


def _couple_images(rows: Tensor) -> Tensor:
    """rows [B, C, N] → CP [B, C]."""
    scale = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    if rows.dtype == torch.float64:  # squares of float64 can overflow or vanish; those of narrower floats cannot
        scale = rows.abs().amax((1, 2))
        rows = rows / torch.where(scale > 0, scale, 1.0)[:, None, None]
    values, weights, squares = _by_positions(rows.double()) if rows.shape[2] < rows.shape[1] else _by_channels(rows)
    coupling = coupling_of_spectrum(values, weights)
    error = _estimated_error(values, weights, squares, coupling, rows.shape[2])
    for image in (error > TRUST).nonzero().flatten().tolist():
        coupling[image] = coupling_of_spectrum(*_spectrum_of_rows(rows[image : image + 1].double()))[0]
    return coupling * scale[:, None]


def _by_channels(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """rows [B, C, N] → the spectrum [B, C], [B, C, C] from A Aᵀ, and the channels' squared norms [B, C]."""
    matrix = gram_of_rows(rows)
    return *_spectrum_of_gram(matrix), matrix.diagonal(dim1=1, dim2=2)


def _spectrum_of_gram(gram: Tensor) -> tuple[Tensor, Tensor]:
    """gram [B, C, C] → eigenvalues [B, C] and squared eigenvectors [B, C, C], what `coupling_of_spectrum` takes."""
    values, vectors = eigen(gram)
    return values, vectors.square()


def _by_positions(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same from Aᵀ A, for fewer positions than channels: rows [B, C, N] float64 → [B, N+1], [B, C, N+1], [B, C].

    With Aᵀ A = V Λ Vᵀ, q_ij² λ_j = (A V)_ij². The last column is the null space: eigenvalue 0, the missing weight.
    """
    squares = rows.square().sum(2)
    refuse_unbounded(squares)
    values, vectors = eigen(rows.mT @ rows)
    weights = torch.where(values > 0, 1 / values, 0.0)[:, None] * (rows @ vectors).square()
    null = (1 - weights.sum(2, keepdim=True)).clamp(min=0)
    return torch.nn.functional.pad(values, (0, 1)), torch.cat([weights, null], dim=2), squares


def _spectrum_of_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The same without squaring the condition: rows [B, C, N] float64 → [B, C], [B, C, C], by singular values."""
    channels, positions = rows.shape[1:]
    if positions > channels:  # A = Rᵀ Q with orthonormal Q rows: R alone holds the singular values and left vectors
        rows = _triangle(rows.mT).mT
    vectors, sigma, _ = torch.linalg.svd(rows)
    sigma = torch.where(sigma > channels * EPS * sigma[:, :1], sigma, 0.0)
    return torch.nn.functional.pad(sigma.square(), (0, channels - sigma.shape[1])), vectors.square()


def _triangle(tall: Tensor) -> Tensor:
    """R of the QR decomposition: [B, N, C] → [B, C, C], N ≥ C; in parts that stay in the cache where there are many."""
    size = TALL * tall.shape[2]
    whole = tall.shape[1] // size
    if whole > 1:
        parts = tall[:, : whole * size].unflatten(1, (whole, size))
        triangles = torch.linalg.qr(parts, mode="r").R.flatten(1, 2)
        tall = torch.cat([triangles, tall[:, whole * size :]], dim=1)
    return torch.linalg.qr(tall, mode="r").R


def _estimated_error(values: Tensor, weights: Tensor, squares: Tensor, coupling: Tensor, positions: int) -> Tensor:
    """An upper estimate of CP's largest relative error after a Gram matrix, per image [B].

    Rounding shifts eigenvalues by a few EPS·λ_max, hence a singular value σ by that over 2σ; eigenvalues below DROP
    hide singular values up to √DROP·σ_max, unless silent channels or too few positions account for them. A small
    weight of the null space, being what is missing from 1, is uncertain by as much as it says.
    """
    largest = values.amax(-1)
    sounding = squares > SILENT * largest[:, None]
    hidden = (values > 0).sum(-1) < sounding.sum(-1).clamp(max=positions)
    if weights.shape[2] > positions:  # the last column is the null space
        hidden |= (sounding & (weights[..., -1] < UNSURE)).any(-1)
    smallest = torch.where(values > 0, values, torch.inf).amin(-1).sqrt()
    error = torch.where(hidden, (DROP * largest).sqrt(), 2 * EPS * largest / smallest)
    return error / torch.where(sounding, coupling, torch.inf).amin(-1)
