"""What input channels contribute to a consumer's outputs, at sampled output positions, as moments for ThiNet & Co.

One sample is one output value: one filter at one position of one image, without the bias. Of the drawn positions all
filters count. X [samples, channels] is never held whole: only G = Xᵀ X is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dcodp.calibration.watch import Read
from dcodp.errors import InputError

BLOCK = 2**22  # float64 numbers of X formed at a time (32 MB)


def draw_positions(read: Read, per_image: int, generator: torch.Generator) -> Tensor:
    """Output positions (image, row, column), [S, 3] int64 on the CPU: `per_image` of every image, drawn uniformly.

    Where the input holds something else than whole images (a linear layer's rows, regions of images), `per_image`
    times the number of images are drawn of all its positions together. Where there are no more positions than that,
    each is taken once.
    """
    height, width = read.out
    images, positions, count = len(read.x), height * width, per_image
    if read.images != images:
        images, positions, count = 1, images * positions, per_image * read.images
    if count >= positions:
        drawn = torch.arange(positions).expand(images, -1)
    else:
        drawn = torch.randint(positions, (images, count), generator=generator)
    flat = (drawn + positions * torch.arange(images)[:, None]).flatten()
    return torch.stack([flat // (height * width), flat // width % height, flat % width], dim=1)


def patches(read: Read, positions: Tensor) -> Tensor:
    """The input values behind the outputs at `positions` [S, 3] → [S, C, kh · kw] float64; padding reads as 0."""
    assert read.geometry is not None
    image, row, column = positions.to(read.x.device).unbind(1)
    rows, row_exists = _inputs_of(read, row, 0)
    columns, column_exists = _inputs_of(read, column, 1)
    values = read.x.detach()[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].double()  # [S, kh, kw, C]
    exists = row_exists[:, :, None] & column_exists[:, None, :]
    return torch.where(exists[..., None], values, 0.0).flatten(1, 2).mT


def _inputs_of(read: Read, out: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Along one axis, for output coordinates [S] the input coordinate under every tap of the kernel [S, k], and
    whether there is one (else the coordinate is a valid but meaningless one)."""
    geometry, size = read.geometry, read.x.size(2 + axis)
    assert geometry is not None
    stride, padding = geometry.stride[axis], geometry.padding[axis]
    taps = geometry.dilation[axis] * torch.arange(read.weight.size(2 + axis), device=out.device)
    if geometry.transposed:  # input i is written to outputs stride · i − padding + tap
        scaled = out[:, None] + padding - taps
        found, hit = scaled // stride, scaled % stride == 0
    else:
        found = stride * out[:, None] - padding + taps
        hit = torch.ones_like(found, dtype=torch.bool)
    return found.clamp(0, size - 1), hit & (found >= 0) & (found < size)


def contribution_gram(contributions: Tensor) -> Tensor:
    """Xᵀ X: contributions [N, C], any float dtype → [C, C] float64. Raises InputError on NaN and infinite values."""
    if contributions.ndim != 2 or not contributions.is_floating_point() or not contributions.numel():
        raise InputError(
            f"contributions are [samples, channels] floats, none of them 0, "
            f"not {list(contributions.shape)} {contributions.dtype}"
        )
    if not bool(torch.isfinite(contributions).all()):
        raise InputError("contributions hold NaN or infinite values; check the weights and the calibration images")
    samples = contributions.detach().double()
    return samples.T @ samples


def output_energy(inputs: Tensor, weight: Tensor) -> Tensor:
    """Σ y² over samples and filters: patches [S, C, K], weight [F, C, K], both float64 → a scalar."""
    return (inputs.flatten(1) @ weight.flatten(1).T).square().sum()


def group_gram(inputs: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """Xᵀ X of a group's channels: patches [S, C, K], weight [F, C, K], both float64; index [channels, m] are the
    coordinates in C that each channel fills, whose contributions add up → [channels, channels] float64."""
    inputs, weight = inputs[:, index].flatten(2), weight[:, index].flatten(2)  # [S or F, channels, m · K]
    if inputs.size(2) == 1:  # X = w_f x_s: the sums over filters and over samples part
        return contribution_gram(inputs[..., 0]) * contribution_gram(weight[..., 0])
    total = inputs.new_zeros(len(index), len(index))
    by_channel = weight.permute(1, 2, 0)  # [channels, m · K, F]
    for part in inputs.split(max(1, BLOCK // (len(weight) * len(index)))):
        total += contribution_gram(torch.bmm(part.transpose(0, 1), by_channel).flatten(1).T)
    return total
