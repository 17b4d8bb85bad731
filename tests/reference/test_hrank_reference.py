"""Average rank against what HRank's published code gives on synthetic sets and YOLOv8n maps."""

import numpy as np
import pytest
import torch

from dcodp.importance import average_rank

pytestmark = pytest.mark.realdata
SYNTHETIC = ("gauss", "relu_dead_dup", "lowrank", "tall_C_gt_HW")
YOLOV8N = ("yolov8n_model1_160px", "yolov8n_model3_320px", "yolov8n_model5_320px")


@pytest.fixture(scope="module")
def reference(realdata):
    with np.load(realdata / "reference" / "hrank_reference.npz", allow_pickle=False) as archive:
        tensors = {key: torch.from_numpy(archive[key]) for key in archive.files}
    with np.load(realdata / "reference" / "chip_reference.npz", allow_pickle=False) as archive:
        return tensors | {f"{name}/maps": torch.from_numpy(archive[f"{name}/maps"]) for name in SYNTHETIC + YOLOV8N}


@pytest.mark.parametrize("name", SYNTHETIC + YOLOV8N)
def test_rank_of_every_map(reference, name):
    maps, robust = reference[f"{name}/maps"], reference[f"{name}/robust"]
    ours = torch.stack([average_rank(image[None]) for image in maps])
    assert robust.any() and torch.equal(ours[robust], reference[f"{name}/rank_per_image_f32"].double()[robust])


@pytest.mark.parametrize("name", SYNTHETIC + YOLOV8N)
def test_average_of_the_published_code(reference, name):
    robust = reference[f"{name}/robust"].all(0)
    published = reference[f"{name}/rank_official_avg"].double()
    ours = average_rank(reference[f"{name}/maps"])
    torch.testing.assert_close(ours[robust], published[robust], rtol=1e-6, atol=0)
