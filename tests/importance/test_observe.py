"""What is seen of a running network: maps after normalisation and activation, and inputs as layers read them."""

import pytest
import torch
from torch import nn

from dcodp.calibration.watch import Read, Watch


class Swish(nn.Module):
    """Reads its input twice."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class HandMadeHardSwish(nn.Module):
    def forward(self, x):
        return x * nn.functional.relu6(x + 3) / 6


def watched(network: nn.Module, *inputs: torch.Tensor) -> tuple[list[tuple[str, torch.Tensor]], list[Read]]:
    weights = [name for name, _ in network.named_parameters() if name.endswith("weight")]
    maps, reads = [], []
    watch = Watch(network.eval(), weights, lambda *seen: maps.append(seen), weights, reads.append)
    with torch.no_grad():
        with watch:
            network(*inputs)
        watch.flush()
    assert not watch.pending
    return maps, reads


def test_maps_come_after_the_activation(network):
    images = torch.randn(2, 3, 8, 8)
    maps, _ = watched(network, images)
    seen = dict(maps)
    first = network.norm(network.stem(images)).relu()
    assert torch.equal(seen["stem.weight"], first)
    assert torch.equal(seen["branch.weight"], network.branch(first).relu())  # before the sum
    assert seen["fc.weight"].shape == (1, 4, 2, 1)
    assert torch.equal(seen["fc.weight"][0, :, :, 0].T, network(images))


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.Hardswish(), nn.PReLU(4), Swish(), HandMadeHardSwish()],
    ids=lambda module: type(module).__name__,
)
def test_activations_are_followed(activation):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), activation, nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    images = torch.randn(1, 3, 8, 8)
    seen = dict(watched(network, images)[0])
    torch.testing.assert_close(seen["0.weight"], network[:3](images))


def test_a_layer_that_runs_twice_is_seen_twice():
    layer = nn.Conv2d(3, 3, 1)
    maps, reads = watched(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(1, 3, 2, 2))
    assert [name for name, _ in maps] == ["0.weight"] * 2 == [read.name for read in reads]


def test_inputs_are_those_that_layers_read(network):
    images = torch.randn(2, 3, 8, 8)
    reads = {read.name: read for read in watched(network, images)[1]}
    first = network.norm(network.stem(images)).relu()
    assert torch.equal(reads["stem.weight"].x, images)
    assert torch.equal(reads["branch.weight"].x, first)
    assert torch.equal(reads["down.weight"].x, first + network.branch(first).relu())
    assert reads["down.weight"].out == (4, 4) and reads["down.weight"].geometry.stride == (2, 2)
    linear = reads["fc.weight"]
    assert linear.x.shape == (2, 80, 1, 1) and linear.weight.shape == (4, 80, 1, 1) and linear.images == 2
    assert linear.maps.shape == (1, 80, 2, 1)


def test_a_head_of_regions_where_no_region_was_found():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Linear(5, 2)

        def forward(self, images):
            found = self.body(images)
            return self.fc(self.head(found[:0]).relu().mean((2, 3)))

    maps, reads = watched(Head(), torch.randn(2, 3, 4, 4))
    assert [name for name, _ in maps] == ["body.weight"] == [read.name for read in reads]


def test_layers_in_one_and_three_dimensions():
    maps, reads = watched(nn.Conv1d(2, 3, 3), torch.randn(4, 2, 9))
    assert maps[0][1].shape == (4, 3, 7, 1) and reads[0].x.shape == (4, 2, 9, 1) and reads[0].out == (7, 1)
    maps, reads = watched(nn.Conv3d(2, 3, 3), torch.randn(4, 2, 5, 6, 7))
    assert maps[0][1].shape == (4, 3, 3, 20) and reads[0].geometry is None


def test_a_layer_on_sequences():
    tokens = torch.randn(2, 7, 5)
    network = nn.Sequential(nn.Linear(5, 6), nn.GELU())
    maps, reads = watched(network, tokens)
    torch.testing.assert_close(maps[0][1][0, :, :, 0].T, network(tokens).flatten(0, 1))
    assert reads[0].x.shape == (14, 5, 1, 1)


def test_a_linear_layer_is_seen_before_its_channels_are_merged_or_split():
    tokens = torch.randn(2, 7, 5)
    for shape in ((2, 42), (2, 7, 2, 3)):
        network = nn.Sequential(nn.Linear(5, 6), nn.Unflatten(0, (1, 2)), nn.ReLU(), Reshaped(shape), nn.ReLU())
        ((name, maps),) = watched(network, tokens)[0]
        assert name == "0.weight"
        torch.testing.assert_close(maps[0, :, :, 0].T, network[0](tokens).relu().flatten(0, 1))


class Reshaped(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(self.shape)
