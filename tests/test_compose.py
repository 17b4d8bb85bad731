"""Composition: every configuration file composes, sweeps expand, bad input is one clear line before any work."""

from pathlib import Path

import hydra
import pytest

from dcodp import compose
from dcodp.compose import cells, register
from dcodp.config import Config, semantic
from dcodp.errors import InputError
from dcodp.identity import dense_key, run_id, scores_key
from dcodp.method import Method

CONF = Path(__file__).resolve().parents[1] / "conf"
FILES = sorted(p for p in CONF.rglob("*.yaml") if p.parent != CONF)  # those of the groups
# one of an experiment's cells
SINGLE = ("model=yolov8n", "ratio=0.5", "target=null", "seed=0", "importance=l1", "importance.aggregate=sum",
          "interlayer=true", "method=paper")  # fmt: skip
register()


def one(*overrides: str) -> Config:
    ((_, config),) = cells(CONF, overrides)
    return config


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_every_file_composes(path):
    group = path.parent.relative_to(CONF).as_posix()
    group = "+recipe" if group == "recipe" else group  # models bring theirs along
    assert isinstance(one(f"{group}={path.stem}", *(SINGLE if group == "experiment" else ())), Config)


def test_there_are_files_to_compose():
    assert {p.parent.name for p in FILES} >= {"model", "dataset", "importance", "schedule", "launcher", "experiment"}


def test_the_defaults_are_the_demonstration():
    config = one()
    assert (config.model.name, config.dataset.name, config.ratio) == ("yolov8n", "shapes", 0.5)


def test_a_detector_brings_its_recipe_and_the_schedule_goes_over_it():
    assert one("model=faster_rcnn", "schedule=paper_voc").finetune.mosaic == 0
    assert one("model=yolov8n", "schedule=paper_voc").finetune.mosaic == 1
    assert one("model=faster_rcnn", "schedule=paper_voc").train.lr == 1e-3
    assert one("model=yolov7", "train.scale=0.1").train.scale == 0.1
    assert one("model=yolov7", "schedule=demo").train.scale == one("schedule=demo").train.scale


def test_the_paper_schedule_has_the_papers_settings():
    config = one("schedule=paper_voc")
    assert (config.train.epochs, config.finetune.epochs, config.image_size) == (100, 20, 640)
    assert (config.train.lr, config.train.momentum, config.train.weight_decay) == (1e-3, 0.937, 5e-4)
    assert one("schedule=paper_coco").train.epochs == 150
    assert (config.evaluation.confidence, config.evaluation.iou) == (0.001, 0.6)


def test_fine_tuning_has_settings_of_its_own_whatever_the_model():
    """From trained weights: a low rate and a short warm-up, in both phases; augmentation stays the model's."""
    for model in ("yolov8n", "yolov7", "faster_rcnn"):
        config = one(f"model={model}", "schedule=finetune")
        paper = one(f"model={model}", "schedule=paper_voc")
        for phase in (config.train, config.finetune):
            assert phase.lr < paper.train.lr and phase.warmup_epochs < paper.train.warmup_epochs
        assert config.train.lr * config.train.fresh_lr == pytest.approx(config.finetune.lr)
        for key in ("mosaic", "close_mosaic", "scale", "translate", "hsv"):
            assert getattr(config.train, key) == getattr(paper.train, key)


def test_a_sweep_expands_to_its_cells():
    expanded = cells(CONF, ["ratio=0.2,0.5,0.7", "seed=0,1"])
    assert len(expanded) == 6
    assert sorted((c.ratio, c.seed) for _, c in expanded)[0] == (0.2, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("importance.seed=-1", r"importance.seed=-1 is out of range"),
        ("importance=slimming allocation=global", r"use importance\.aggregate=mean or max"),
        ("ratio=1.3", r"ratio=1.3 is out of range; use 0.0 ≤ ratio < 1.0"),
        ("finetune.epoch=3", r"finetune.epoch is not known; did you mean finetune.epochs\?"),
        ("dataset=voc2017", "dataset=voc2017 is not known; use one of bccd, coco2017, custom, shapes, voc0712, "),
        ("importance=nose", "importance=nose is not known; use one of chip"),
        ("ratio=half", "ratio=half is not understood"),
        ("nonsense", "write overrides as key=value"),
        ("image_size=100", "multiple of 32"),
        ("wandb.mode=loud", "wandb.mode=loud is not known; use one of offline, online, disabled"),
        ("ratio=0.2,1.5", "ratio=1.5 is out of range"),
        ("compensate=true", "compensate"),
        ("finetune.labels=false", r"leaves nothing to learn from; set finetune\.distill=1"),
        ("control=scratch steps=2", "use steps=1 and finetune.epochs of 1 or more, not 2 and"),
        ("control=scratch finetune.epochs=0", "trains one small net from random weights"),
        (
            "importance=thinet importance.aggregate=max",
            "importance.aggregate=max means nothing to thinet; use one of sum",
        ),
        (
            "importance=dcodp_greedy allocation=global",
            "allocation=global means nothing to dcodp_greedy, which",
        ),
    ],
)
def test_bad_input_is_one_line_that_names_the_key(override, message):
    with pytest.raises(InputError, match=message) as caught:
        cells(CONF, override.split(" "))
    assert "\n" not in str(caught.value)


def test_what_cells_share_and_what_they_do_not(tmp_path):
    base, other_ratio = one("ratio=0.2"), one("ratio=0.5")
    assert dense_key(base) == dense_key(other_ratio) and scores_key(base) == scores_key(other_ratio)
    assert run_id(base) != run_id(other_ratio)
    assert dense_key(base) != dense_key(one("train.lr=0.01"))
    assert scores_key(base) != scores_key(one("importance=l1"))
    assert run_id(base) == run_id(one("ratio=0.2", f"paths.results={tmp_path}", "wandb.mode=disabled"))


def test_keys_that_came_later_name_no_run_anew_until_they_are_used():
    tree = semantic(one())
    assert "control" not in tree and not {"distill", "labels"} & (tree["finetune"].keys() | tree["train"].keys())
    assert run_id(one("train.distill=1", "train.labels=false")) == run_id(one())  # a dense net has no teacher
    taught = one("finetune.distill=1"), one("finetune.distill=1", "finetune.labels=false"), one("control=scratch")
    assert len({run_id(config) for config in (one(), *taught)}) == 4
    assert {dense_key(config) for config in taught} == {dense_key(one())}
    assert [Method.of(config).recovery for config in (one(), *taught)] == [
        *("labels", "labels + distillation", "distillation", "scratch + labels")
    ]


def test_other_weights_of_the_teacher_are_another_method():
    """Or a table would take their nets for seeds of one."""
    taught = [
        one("finetune.distill=1"),
        one("finetune.distill=4"),
        one("finetune.distill=1", "finetune.distill_features=0.1"),
    ]
    assert len({run_id(config) for config in taught}) == 3
    assert run_id(one("train.distill_features=0")) == run_id(one())
    assert [Method.of(config).recovery for config in taught] == [
        "labels + distillation",
        "labels + distillation (weight 4)",
        "labels + distillation (features 0.1)",
    ]


def test_weights_count_by_content_not_by_place(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"same")
    ids = {run_id(one(f"model.weights={tmp_path / name}")) for name in ("a.pt", "b.pt")}
    assert len(ids) == 1
    with pytest.raises(InputError, match=r"c.pt does not exist"):
        semantic(one(f"model.weights={tmp_path / 'c.pt'}"))


@pytest.mark.parametrize("key", ["weights", "backbone_weights"])
def test_a_folder_of_weights_serves_a_sweep_over_detectors(tmp_path, key):
    files = {"yolov8n": "yolov8n.pt", "yolov7": "yolov7.pth", "faster_rcnn": "faster_rcnn.safetensors"}
    for name in (*files.values(), "yolov8n.txt", "yolov8n-old.pt"):
        (tmp_path / name).write_bytes(name.encode())
    found = cells(CONF, [f"model={','.join(files)}", f"model.{key}={tmp_path}"])
    assert {c.model.name: getattr(c.model, key) for _, c in found} == {m: str(tmp_path / f) for m, f in files.items()}
    for model, file in files.items():
        folder, itself = (one(f"model={model}", f"model.{key}={place}") for place in (tmp_path, tmp_path / file))
        assert run_id(folder) == run_id(itself)


def test_a_folder_of_weights_must_hold_exactly_one_file_of_the_model(tmp_path):
    with pytest.raises(InputError) as none:
        one("model=yolov7", f"model.weights={tmp_path}")
    assert str(none.value) == (
        f"model.weights={tmp_path} holds no weights of yolov7; put yolov7.pt, yolov7.pth or yolov7.safetensors there, "
        "or give the file itself"
    )
    (tmp_path / "yolov7.pt").mkdir()  # a folder is no file
    for ending in ("pth", "safetensors"):
        (tmp_path / f"yolov7.{ending}").touch()
    with pytest.raises(InputError) as several:
        one("model=yolov7", f"model.backbone_weights={tmp_path}")
    assert str(several.value) == (
        f"model.backbone_weights={tmp_path} holds yolov7.pth and yolov7.safetensors; leave one of them there, "
        "or give the file itself"
    )


def test_a_folder_of_ones_own_adds_names_and_replaces_none(tmp_path, monkeypatch):
    own = tmp_path / "my conf"
    (own / "model").mkdir(parents=True)
    (own / "model" / "mine.yaml").write_text("name: mine\nfamily: yolov8\nvariant: s\n")
    (own / "model" / "yolov8n.yaml").write_text("name: not this one\n")
    monkeypatch.chdir(own)
    with pytest.raises(InputError, match="model=mine is not known"):  # where one stands does not count
        one("model=mine")
    ((_, config),) = cells(CONF, ["model=mine"], own)
    assert (config.model.name, config.model.variant) == ("mine", "s")
    assert one("model=mine", f"hydra.searchpath=['file://{own}']").model == config.model  # Hydra's own way
    assert [c.model.name for _, c in cells(CONF, ["model=yolov8n,mine"], own)] == ["yolov8n", "mine"]
    with pytest.raises(InputError, match="nowhere is no folder"):
        cells(CONF, [], Path("nowhere"))


def test_a_single_cell_is_composed_once(monkeypatch):
    """Its sweep, if an experiment asks for one, is looked up in what becomes its configuration."""
    asked = []
    monkeypatch.setattr(compose, "compose", lambda *given, **options: asked.append(given) or real(*given, **options))
    real = hydra.compose
    alone = one("ratio=0.2", "hydra.job.name=named")
    assert len(asked) == 1
    ((overrides, _), (_, of_a_sweep)) = cells(CONF, ["ratio=0.1,0.2", "hydra.job.name=named"])
    assert len(asked) == 3 and overrides == ["ratio=0.1", "hydra.job.name=named"]  # of the sweep the first alone
    assert alone == of_a_sweep
