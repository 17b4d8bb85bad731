"""ThiNet's order, kept sets and scales against the reference, for sampled and for all output positions."""

import numpy as np
import pytest
import torch
from torch.nn.functional import unfold

from dcodp.importance import contribution_gram, thinet_order, thinet_scales_from_gram

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def reference(realdata):
    with np.load(realdata / "reference" / "thinet_reference.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def all_contributions(reference: dict[str, torch.Tensor]) -> torch.Tensor:
    """X [locations · filters, Cin] float64: row = location · filters + filter."""
    activation, weight = reference["activation"].double(), reference["weight"].double()
    _, channels, *kernel = weight.shape
    patches = unfold(activation, kernel, padding=1).view(len(activation), channels, -1, activation[0, 0].numel())
    parts = torch.einsum("bckl,fck->blfc", patches, weight.flatten(2))  # [B, H·W, filters, Cin]
    image, y, x = reference["locations_all"].long().T
    return parts[image, y * activation.shape[3] + x].reshape(-1, channels)


@pytest.fixture(scope="module", params=["single", "all"])
def sampled(request, reference):
    contributions = reference["X"] if request.param == "single" else all_contributions(reference)
    return contributions, {k.split("/")[1]: v for k, v in reference.items() if k.startswith(f"{request.param}/")}


def test_order(sampled):
    contributions, wanted = sampled
    assert wanted["relative_gap_to_second"].min() > 1e-12
    assert thinet_order(contributions).tolist() == wanted["removal_order"].tolist()


def test_objective(sampled):
    contributions, wanted = sampled
    removed = contributions[:, wanted["removal_order"].long()].cumsum(1)
    torch.testing.assert_close(removed.square().sum(0), wanted["objective_after_step"])


@pytest.mark.parametrize("keep", [4, 8, 12])
def test_kept_channels_and_scales(sampled, keep):
    contributions, wanted = sampled
    kept = thinet_order(contributions)[-keep:].sort().values
    assert kept.tolist() == wanted[f"keep{keep}_index"].tolist()
    scales = thinet_scales_from_gram(contribution_gram(contributions), kept)
    torch.testing.assert_close(scales, wanted[f"keep{keep}_scale"], rtol=1e-8, atol=1e-8)
    outputs, parts = contributions.sum(1), contributions[:, kept]
    residuals = torch.stack([(outputs - parts.sum(1)).norm(), (outputs - parts @ scales).norm()])
    torch.testing.assert_close(residuals, wanted[f"keep{keep}_residual"])
