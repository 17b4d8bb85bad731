"""Nuclear-norm coupling against what CHIP's published code gives on synthetic sets and YOLOv8n maps."""

import numpy as np
import pytest
import torch

from dcodp.importance import nuclear_coupling

pytestmark = pytest.mark.realdata
SYNTHETIC = ("gauss", "relu_dead_dup", "lowrank", "tall_C_gt_HW")
SETS = (*SYNTHETIC, "yolov8n_model1_160px", "yolov8n_model3_320px", "yolov8n_model5_320px")


@pytest.fixture(scope="module")
def reference(realdata):
    with np.load(realdata / "reference" / "chip_reference.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def assert_relative(ours: torch.Tensor, wanted: torch.Tensor, nuclear: torch.Tensor, tolerance: float) -> None:
    """Relative to the score, down to the rounding of the definition, a difference of two nuclear norms [B]."""
    assert bool(((ours - wanted).abs() <= tolerance * wanted.abs() + 1e-14 * nuclear[:, None]).all())


@pytest.mark.parametrize("name", SETS)
def test_float64_recomputation(reference, name):
    ours = nuclear_coupling(reference[f"{name}/maps"])
    assert_relative(ours, reference[f"{name}/ci_f64"], reference[f"{name}/nuclear_f64"], 1e-8)


@pytest.mark.parametrize("name", SETS)
def test_float64_recomputation_of_rounded_maps(reference, name):
    rounded = torch.from_numpy(np.round(reference[f"{name}/maps"].numpy(), 4))
    wanted = reference[f"{name}/ci_f64_rounded4"]
    assert_relative(nuclear_coupling(rounded), wanted, reference[f"{name}/nuclear_f64"], 1e-6)


@pytest.mark.parametrize("name", SETS)
def test_published_code(reference, name):
    """Its float32 singular values and 4-decimal maps leave about 1e-5 of the nuclear norm."""
    wanted, nuclear = reference[f"{name}/ci_official"].double(), reference[f"{name}/nuclear_f64"]
    ours = nuclear_coupling(reference[f"{name}/maps"])
    assert bool(((ours - wanted).abs() <= 1e-5 * nuclear[:, None]).all())
    sizes = reference[f"{name}/batch_sizes"].tolist()
    averaged = torch.stack([batch.mean(0) for batch in ours.split(sizes)]).mean(0)
    published = reference[f"{name}/ci_official_avg_two_batches"].double()
    assert bool(((averaged - published).abs() <= 1e-5 * nuclear.max()).all())
