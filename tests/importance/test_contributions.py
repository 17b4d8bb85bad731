"""Contributions of input channels: they add up to the layer's output, whatever its kernel, and to the right moments."""

import pytest
import torch
from torch import nn

from dcodp.calibration.sampling import draw_positions, group_gram, output_energy, patches
from dcodp.calibration.watch import Read, Watch
from dcodp.importance import contribution_gram

LAYERS = {
    "plain": (nn.Conv2d(4, 5, 3, padding=1), (2, 4, 6, 7)),
    "strided and dilated": (nn.Conv2d(4, 5, (3, 2), stride=(2, 3), padding=(2, 1), dilation=(2, 1)), (2, 4, 9, 8)),
    "same": (nn.Conv2d(4, 5, 5, padding="same"), (2, 4, 6, 7)),
    "transposed": (nn.ConvTranspose2d(4, 5, 3, stride=2, padding=1, output_padding=1, dilation=2), (2, 4, 5, 6)),
    "one-dimensional": (nn.Conv1d(4, 5, 3, stride=2, padding=1), (2, 4, 9)),
    "linear": (nn.Linear(4, 5), (6, 4)),
}


def read_of(layer: nn.Module, inputs: torch.Tensor) -> Read:
    reads: list[Read] = []
    with torch.no_grad(), Watch(layer, read=["weight"], on_read=reads.append):
        layer(inputs)
    return reads[0]


def everything(read: Read) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches at all positions, and the weight."""
    positions = draw_positions(read, 10**6, torch.Generator())
    return patches(read, positions), read.weight.detach().double().flatten(2)


@pytest.mark.parametrize("name", LAYERS)
def test_they_add_up_to_the_output(name):
    layer, shape = LAYERS[name]
    layer, inputs = layer.double(), torch.randn(shape, dtype=torch.float64)
    found, weight = everything(read_of(layer, inputs))
    wanted = layer(inputs) - layer.bias.view(1, -1, *[1] * (len(shape) - 2))
    torch.testing.assert_close(torch.einsum("sck,fck->sf", found, weight), wanted.movedim(1, -1).flatten(0, -2))
    torch.testing.assert_close(output_energy(found, weight), wanted.square().sum())


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("plain", [[0], [1], [2], [3]]),
        ("plain", [[3, 1], [0, 2]]),  # a channel that fills two coordinates
        ("linear", [[2], [0]]),  # a group among others
        ("linear", [[0, 1], [2, 3]]),
    ],
)
def test_moments_of_a_group(name, index, monkeypatch):
    monkeypatch.setattr("dcodp.calibration.sampling.BLOCK", 64)  # several blocks
    layer, shape = LAYERS[name]
    found, weight = everything(read_of(layer, torch.randn(shape).to(layer.weight)))
    samples = torch.einsum("sck,fck->sfc", found, weight).flatten(0, 1)[:, torch.tensor(index)].sum(2)
    torch.testing.assert_close(group_gram(found, weight, torch.tensor(index)), contribution_gram(samples))


def test_positions_are_drawn_per_image():
    read = read_of(nn.Conv2d(2, 3, 3), torch.randn(3, 2, 12, 12))
    drawn = draw_positions(read, 7, torch.Generator().manual_seed(1))
    assert drawn[:, 0].tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert drawn[:, 1:].min() >= 0 and drawn[:, 1:].max() < 10 and len(drawn[:7].unique(dim=0)) > 1
    assert torch.equal(drawn, draw_positions(read, 7, torch.Generator().manual_seed(1)))
    assert not torch.equal(drawn, draw_positions(read, 7, torch.Generator().manual_seed(2)))


def test_rows_of_a_linear_layer_are_drawn_by_the_number_of_images():
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(0, 0), nn.Linear(5, 4))
    reads: list[Read] = []
    with torch.no_grad(), Watch(network, read=["2.weight"], on_read=reads.append):
        network(torch.randn(2, 2, 30, 5))  # 180 rows of two images
    drawn = draw_positions(reads[0], 10, torch.Generator())
    assert len(drawn) == 20 and drawn[:, 0].max() < 180 and (drawn[:, 1:] == 0).all()


def test_a_convolution_on_regions_is_sampled_by_the_number_of_images():
    network = nn.Sequential(nn.Conv2d(2, 12, 1), nn.Unflatten(1, (6, 2)), nn.Flatten(0, 1), nn.Conv2d(2, 3, 3))
    reads: list[Read] = []
    with torch.no_grad(), Watch(network, read=["3.weight"], on_read=reads.append):
        network(torch.randn(2, 2, 7, 6))  # twelve regions of two images
    (read,) = reads
    drawn = draw_positions(read, 10, torch.Generator().manual_seed(0))
    assert len(drawn) == 20 and len(drawn[:, 0].unique()) > 2
    assert (drawn.amax(0) < torch.tensor([12, 5, 4])).all() and read.maps.shape == (12, 2, 7, 6)
    everywhere = draw_positions(read, 10**6, torch.Generator())
    assert len(everywhere) == len(everywhere.unique(dim=0)) == 12 * 5 * 4
