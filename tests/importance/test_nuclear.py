"""Nuclear-norm coupling: hand-computed values, the definition on awkward matrices, invariances, memory, refusals."""

import math

import pytest
import torch
from definitions import nuclear_coupling_from_gram
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dcodp.calibration import inner_products
from dcodp.errors import InputError
from dcodp.importance import direct_nuclear_coupling, gram, nuclear, nuclear_coupling


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_channel(maps: torch.Tensor, channel: int, value: torch.Tensor | float) -> torch.Tensor:
    maps = maps.clone()
    maps[:, channel] = value
    return maps


def graded(channels: int, size: int, decades: float) -> torch.Tensor:
    """Singular values from 1 down to 10^-decades, in general position."""
    rank = min(channels, size * size)
    left, right = (torch.linalg.qr(normal(n, rank, seed=n)).Q for n in (channels, size * size))
    return (left * torch.logspace(0, -decades, rank, dtype=torch.float64) @ right.T).view(1, channels, size, size)


BASE = normal(2, 12, 9, 9)
DUPLICATES = with_channel(with_channel(with_channel(BASE, 3, BASE[:, 7]), 9, 2 * BASE[:, 7]), 5, 0.0)
INDEPENDENT = torch.block_diag(torch.ones(1, 1).double(), normal(7, 3))  # channel 0 alone in its direction
CASES = {
    "random": BASE,
    "rank-deficient": (normal(2, 20, 5) @ normal(2, 5, 144)).view(2, 20, 12, 12),
    "duplicates, multiple, dead": DUPLICATES,
    "fewer positions than channels": normal(2, 40, 4, 5),
    "fewer positions, rank-deficient": (normal(2, 40, 3) @ normal(2, 3, 20)).view(2, 40, 4, 5),
    "fewer positions, one independent": (INDEPENDENT @ torch.linalg.qr(normal(4, 4)).Q).view(1, 8, 2, 2),
    "weak and independent": torch.diag(torch.tensor([1.0, 3e-8, 0, 0]).double()).view(1, 4, 2, 2),
    "weak and independent, few positions": torch.diag(torch.tensor([1.0, 3e-8, 0, 0, 0]).double())[None, :, None, :4],
    "as many positions as channels": normal(1, 16, 4, 4),
    "one position": normal(2, 6, 1, 1),
    "constant": torch.ones(1, 8, 5, 5).double(),
    "constant per channel": torch.arange(1.0, 9.0).double()[None, :, None, None].expand(1, 8, 5, 5),
    "all zero": torch.zeros(2, 8, 5, 5).double(),
    "one image all zero": torch.stack([BASE[0], 0 * BASE[1]]),
    "single channel": normal(2, 1, 5, 5),
    **{f"scale 1e{e}": BASE * 10.0**e for e in (-200, -20, -10, 10, 20, 200)},
    **{f"dominating 1e{e}": with_channel(BASE, 0, BASE[:, 0] * 10.0**e) for e in (2, 4, 6)},
    **{f"weak 1e-{e}": with_channel(BASE, 0, BASE[:, 0] * 10.0**-e) for e in (2, 4, 6)},
    **{f"near duplicate 1e-{e}": with_channel(BASE, 0, BASE[:, 1] + BASE[:, 0] * 10.0**-e) for e in (3, 5, 7, 9)},
    **{f"graded over {d} decades": graded(24, 10, d) for d in (3, 5, 7, 9)},
    **{f"graded over {d} decades, few positions": graded(24, 3, d) for d in (3, 7)},
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_definition(name):
    maps = CASES[name]
    ours, wanted = nuclear_coupling(maps), direct_nuclear_coupling(maps)
    # The definition itself subtracts two nuclear norms, each good to some EPS of its size.
    rounding = 40 * torch.finfo(torch.float64).eps * torch.linalg.svdvals(maps.flatten(2)).sum(-1, keepdim=True)
    assert ours.shape == maps.shape[:2] and ours.dtype == torch.float64
    assert bool(((ours - wanted).abs() <= 1e-9 * wanted + rounding).all())


def test_by_hand():
    rows = [[3.0, 4.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    ours = nuclear_coupling(torch.tensor(rows).view(1, 4, 2, 2))
    twin = 5 * (math.sqrt(2) - 1)  # two equal rows of length 5 have the nuclear norm 5√2, one has 5
    torch.testing.assert_close(ours, torch.tensor([[twin, twin, 2.0, 0.0]], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_order_is_the_definitions():
    maps = normal(3, 32, 8, 8, seed=5).relu()
    assert torch.equal(nuclear_coupling(maps).argsort(), direct_nuclear_coupling(maps).argsort())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_floats_are_computed_in_float64(dtype):
    maps = BASE.to(dtype)
    torch.testing.assert_close(nuclear_coupling(maps), direct_nuclear_coupling(maps), rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_float32_at_extreme_scales(scale):
    maps = (BASE * scale).float()
    torch.testing.assert_close(nuclear_coupling(maps), direct_nuclear_coupling(maps), rtol=1e-9, atol=0)


def test_ill_conditioned_maps_need_the_second_way():
    """A Gram matrix alone misses singular values near 1e-8 of the largest; the maps themselves do not."""
    maps = CASES["graded over 7 decades"]
    wanted = direct_nuclear_coupling(maps)
    by_gram = ((nuclear_coupling_from_gram(gram(maps)) - wanted).abs() / wanted).max()
    by_maps = ((nuclear_coupling(maps) - wanted).abs() / wanted).max()
    assert by_gram > 1e-7 and by_maps < 1e-9


def test_ordinary_maps_do_not_take_the_second_way(monkeypatch):
    monkeypatch.setattr(nuclear, "_spectrum_of_rows", None)  # calling it would raise
    nuclear_coupling(torch.cat([BASE, with_channel(BASE, 5, 0.0)]))  # a dead channel is no reason
    nuclear_coupling(normal(2, 40, 4, 5))


@pytest.mark.parametrize("decades", [0, 1, 4, 7])
@pytest.mark.parametrize("null", [False, True])
def test_the_quadrature_is_exact_to_rounding_with_few_nodes(decades, null):
    """Channels orthogonal to all others: each coupling is the channel's own length."""
    lengths = torch.logspace(0, -decades, 12, dtype=torch.float64)
    values, weights = lengths.square(), torch.eye(12, dtype=torch.float64)
    if null:  # channel 0 becomes almost dependent: left = (s² + 1 − p)/(s² + 1) with p = 1e-4 gives CP = 1 − √(1 − p)
        values = torch.cat([values, torch.zeros(1, dtype=torch.float64)])
        weights = torch.block_diag(weights, torch.ones(1, 1, dtype=torch.float64))
        weights[0, 0], weights[0, -1] = 1e-4, 1 - 1e-4
    found = nuclear.coupling_of_spectrum(values[None], weights[None])[0]
    wanted = torch.cat([lengths, torch.zeros(len(values) - 12, dtype=torch.float64)])
    if null:
        wanted[0] = 1 - math.sqrt(1 - 1e-4)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-15)
    assert null or len(nuclear.quadrature(values)[0]) < 40 + 8 * decades


def test_tall_matrices_are_decomposed_in_parts():
    tall = normal(2, 5 * nuclear.TALL * 3 + 7, 3)
    upper = nuclear._triangle(tall)
    torch.testing.assert_close(upper.mT @ upper, tall.mT @ tall)
    assert upper.shape == (2, 3, 3) and torch.equal(upper, upper.triu())


def test_blocks_of_images_do_not_change_the_result(monkeypatch):
    maps = normal(7, 6, 5, 5)
    whole = nuclear_coupling(maps)
    monkeypatch.setattr(inner_products, "BLOCK", 6 * (6 + 256) * 2)
    monkeypatch.setattr(inner_products, "PIECE", 1)
    torch.testing.assert_close(nuclear_coupling(maps), whole, rtol=1e-9, atol=0)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6), st.floats(1e-6, 1e6))
def test_permutation_and_scale(channels, size, seed, scale):
    maps = normal(1, channels, size, size, seed=seed)
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(seed))
    turned = scale * maps[:, order].flip(3).mT
    torch.testing.assert_close(nuclear_coupling(turned), scale * nuclear_coupling(maps)[:, order], rtol=1e-8, atol=0)


def test_gram_is_the_product_and_averages_over_images():
    maps = normal(3, 6, 4, 4)
    rows = maps.flatten(2)
    torch.testing.assert_close(gram(maps.float()), rows.float().double() @ rows.float().double().mT)
    beside = rows.transpose(0, 1).reshape(1, 6, 12, 4) / math.sqrt(3)
    torch.testing.assert_close(nuclear_coupling_from_gram(gram(maps).mean(0)), nuclear_coupling(beside)[0])


def test_leading_dimensions_of_a_gram_matrix():
    squares = gram(normal(6, 5, 4, 4)).view(2, 3, 5, 5)
    result = nuclear_coupling_from_gram(squares)
    assert result.shape == (2, 3, 5)
    torch.testing.assert_close(result[1, 2], nuclear_coupling_from_gram(squares[1, 2]))


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operator returns with memory of its own."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and not func.is_view:
                self.bytes = max(self.bytes, tensor.numel() * tensor.element_size())
        return result


def test_big_maps_are_converted_piece_by_piece():
    maps = torch.rand(8, 64, 160, 160)
    with Largest() as largest:
        nuclear_coupling(maps)
    assert largest.bytes <= 16 * 2**20  # the maps are 50 MB, 100 MB in float64


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 9, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unbounded_maps_are_named(value, shape, dtype):
    maps = torch.rand(shape, dtype=dtype)
    maps[1, 2, 0, 1] = value
    with pytest.raises(InputError, match="image 1, channel 2"):
        nuclear_coupling(maps)


@pytest.mark.parametrize("maps", [torch.rand(3, 4, 4), torch.ones(1, 2, 3, 3).long(), torch.rand(0, 3, 2, 2)])
def test_what_is_no_map_is_refused(maps):
    with pytest.raises(InputError, match=r"\[B, C, H, W\]"):
        nuclear_coupling(maps)


@pytest.mark.parametrize("matrix", [torch.eye(3), torch.rand(2, 3).double(), torch.full((2, 2), math.nan).double()])
def test_what_is_no_gram_matrix_is_refused(matrix):
    with pytest.raises(InputError, match="Gram matrix"):
        nuclear_coupling_from_gram(matrix)
