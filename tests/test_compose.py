"""Composition: every configuration file composes, sweeps expand, bad input is one clear line before any work."""

from pathlib import Path

import pytest

from dcodp.compose import cells, register
from dcodp.config import Config, semantic
from dcodp.errors import InputError
from dcodp.identity import dense_key, run_id, scores_key

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(p for p in CONF.rglob("*.yaml") if p.parent != CONF)  # those of the groups
SINGLE = ("model=yolov8n", "ratio=0.5", "seed=0", "importance=l1", "interlayer=true")  # of an experiment's cells
register()


def one(*overrides: str) -> Config:
    ((_, config),) = cells(CONF, overrides)
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_file_composes(path):
    group = path.parent.relative_to(CONF).as_posix()
    assert isinstance(one(f"{group}={path.stem}", *(SINGLE if group == "experiment" else ())), Config)


def test_there_are_files_to_compose():
    assert {p.parent.name for p in FILES} >= {"model", "dataset", "importance", "schedule", "launcher", "experiment"}


def test_the_defaults_are_the_demonstration():
    config = one()
    assert (config.model.name, config.dataset.name, config.ratio) == ("yolov8n", "shapes", 0.5)


def test_the_paper_schedule_has_the_papers_settings():
    config = one("schedule=paper_voc")
    assert (config.train.epochs, config.finetune.epochs, config.image_size) == (100, 20, 640)
    assert (config.train.lr, config.train.momentum, config.train.weight_decay) == (1e-3, 0.937, 5e-4)
    assert one("schedule=paper_coco").train.epochs == 150
    assert (config.evaluation.confidence, config.evaluation.iou) == (0.001, 0.6)


def test_a_sweep_expands_to_its_cells():
    expanded = cells(CONF, ["ratio=0.2,0.5,0.7", "seed=0,1"])
    assert len(expanded) == 6
    assert sorted((c.ratio, c.seed) for _, c in expanded)[0] == (0.2, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ratio=1.3", r"ratio=1.3 is out of range; use 0.0 ≤ ratio < 1.0"),
        ("finetune.epoch=3", r"finetune.epoch is not known; did you mean finetune.epochs\?"),
        ("dataset=voc2017", "dataset=voc2017 is not known; use one of coco2017, custom, shapes, voc0712, voc2007, "),
        ("importance=nose", "importance=nose is not known; use one of chip"),
        ("ratio=half", "ratio=half is not understood"),
        ("nonsense", "write overrides as key=value"),
        ("image_size=100", "multiple of 32"),
        ("wandb.mode=loud", "wandb.mode=loud is not known; use one of offline, online, disabled"),
        ("ratio=0.2,1.5", "ratio=1.5 is out of range"),
        ("compensate=true", "compensate"),
    ],
)
def test_bad_input_is_one_line_that_names_the_key(override, message):
    with pytest.raises(InputError, match=message) as caught:
        cells(CONF, [override])
    assert "\n" not in str(caught.value)


def test_what_cells_share_and_what_they_do_not(tmp_path):
    base, other_ratio = one("ratio=0.2"), one("ratio=0.5")
    assert dense_key(base) == dense_key(other_ratio) and scores_key(base) == scores_key(other_ratio)
    assert run_id(base) != run_id(other_ratio)
    assert dense_key(base) != dense_key(one("train.lr=0.01"))
    assert scores_key(base) != scores_key(one("importance=l1"))
    assert run_id(base) == run_id(one("ratio=0.2", f"paths.results={tmp_path}", "wandb.mode=disabled"))


def test_weights_count_by_content_not_by_place(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"same")
    ids = {run_id(one(f"model.weights={tmp_path / name}")) for name in ("a.pt", "b.pt")}
    assert len(ids) == 1
    with pytest.raises(InputError, match=r"c.pt does not exist"):
        semantic(one(f"model.weights={tmp_path / 'c.pt'}"))
