"""What several tests take for granted, by definition."""

from torch import Tensor

from dcodp.calibration.inner_products import check_gram
from dcodp.importance.nuclear import _spectrum_of_gram, coupling_of_spectrum


def nuclear_coupling_from_gram(gram: Tensor) -> Tensor:
    """CP of every channel from G = A Aᵀ alone: symmetric positive semi-definite [..., C, C] float64 → [..., C] float64.

    For a mean of Gram matrices over images, A is the images' maps side by side (over √images). The error is up to
    1e-7 of the largest singular value, because G carries the squares; `nuclear_coupling` has the maps and is exact.
    """
    check_gram(gram)
    return coupling_of_spectrum(*_spectrum_of_gram(gram.reshape(-1, *gram.shape[-2:]))).reshape(gram.shape[:-1])
