"""One small cell from data to record: complete, repeatable, resumable, without network."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import dcodp
from dcodp.compose import cells, register
from dcodp.detectors.registry import build
from dcodp.errors import InputError
from dcodp.files.tensors import load_tensors
from dcodp.identity import run_id
from dcodp.pipeline import run_cell, running
from dcodp.pipeline.cell import Cell
from dcodp.pipeline.fitting import start_from_scratch
from dcodp.records import read_record, run_folder

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "schedule=smoke", "image_size=64", "dataset.generate_train=12", "dataset.generate_val=4",
    "dataset.generate_size=96", "train.batch=4", "finetune.batch=4", "evaluation.pictures=2", "ratio=0.5",
    "importance.images=4", "importance.batch=2", "train.epochs=2", "finetune.epochs=2",
]  # fmt: skip
register()


def configured(folder: Path, *overrides: str):
    places = [f"paths.data={folder / 'data'}", f"paths.results={folder / 'results'}", "wandb.mode=disabled"]
    ((_, config),) = cells(ROOT / "conf", [*SMALL, *places, *overrides])
    return config


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """One cell, computed with every connection beyond this machine refused."""
    folder = tmp_path_factory.mktemp("cell")
    connect, lookup = socket.socket.connect, socket.getaddrinfo
    attempts = []

    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            attempts.append(address)
            raise OSError("no network in tests")
        return connect(self, address)

    def no_lookup(host, *args, **kwargs):
        if host not in ("127.0.0.1", "::1", "localhost"):
            attempts.append(host)
            raise OSError("no network in tests")
        return lookup(host, *args, **kwargs)

    socket.socket.connect, socket.getaddrinfo = refuse, no_lookup
    try:
        config = configured(folder)
        record = run_cell(config)
    finally:
        socket.socket.connect, socket.getaddrinfo = connect, lookup
    assert attempts == []
    return config, record, folder / "results" / "runs" / record.run_id


@pytest.mark.usefixtures("counted_layers")
def test_a_latency_is_timed_once_and_told(cell, monkeypatch):
    folder = cell[2].parents[2]
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    config = configured(folder.parent, "target=latency:0.6", "latency.threads=1", "finetune.epochs=0")
    record = run_cell(config)
    (told,) = [note for note in record.notes if "of the dense one's time" in note]
    assert "onnxruntime, 1 threads: the pruned net took 0." in told and record.block("pruned")["flops"] > 0
    run = run_folder(Path(config.paths.results), record.run_id)
    run.record.unlink()
    monkeypatch.setattr("dcodp.export.met_on", None)
    again = run_cell(config)
    assert again.notes == record.notes
    assert all(again.block("pruned")[key] == record.block("pruned")[key] for key in ("flops", "parameters", "map50_95"))


def test_what_is_timed_decides_nothing_else(tmp_path):
    def name(*words):
        return run_id(configured(tmp_path, *words))

    assert name("target=flops:0.5") == name("target=flops:0.5", "latency.runtime=openvino", "latency.threads=3")
    assert name("target=latency:0.5") != name("target=latency:0.5", "latency.runtime=openvino")
    with pytest.raises(InputError, match=r"steps=2 with target=latency:0\.5: one cut alone is timed; use steps=1"):
        configured(tmp_path, "target=latency:0.5", "steps=2")


def test_the_figures_are_of_the_test_split_and_val_chooses(cell):
    _, record, folder = cell
    tested = run_cell(configured(folder.parents[2], "dataset.test=train", "finetune.epochs=0"))
    for stage in ("dense", "pruned"):
        assert (record.block(stage)["images"], tested.block(stage)["images"]) == (4, 12)
    assert len(list((folder.parents[1] / "cache" / "dense").glob("*/best.safetensors"))) == 1
    assert list(tested.provenance["data_fingerprint"]) == ["train", "val", "test"]


def metrics(record):
    """The numbers that must not depend on how often a run was interrupted."""
    timing = {"latency_ms", "latency", "seconds"}
    return [{k: v for k, v in record.block(s).items() if k not in timing} for s in ("dense", "pruned", "finetuned")]


def same_weights(one, other):
    """The stored models agree bit for bit: metrics of so small a net say little."""
    (a, _), (b, _) = (load_tensors(f / "model.safetensors") for f in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_record_is_complete(cell):
    _, record, folder = cell
    stored = json.loads((folder / "record.json").read_text())
    assert stored["status"] == "done" and stored["run_id"] == record.run_id
    wanted = {"map50", "map50_95", "ap75", "ap_small", "ap_medium", "ap_large", "per_class"}
    for stage in ("dense", "pruned", "finetuned"):
        assert wanted <= set(stored[stage]) and stored[stage]["latency_ms"] > 0
    assert stored["pruned"]["parameters"] == stored["finetuned"]["parameters"] < 0.3 * stored["dense"]["parameters"]
    assert stored["pruned"]["flops"] < 0.4 * stored["dense"]["flops"]
    assert {"code", "libraries", "device", "seed", "data_fingerprint", "wall_seconds"} <= set(stored["provenance"])
    for name in ("plan.json", "model.safetensors", "metrics.jsonl", "log.txt", "pictures.png"):
        assert (folder / name).stat().st_size > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["stage"], r["epoch"]) for r in rows] == [("train", 1), ("train", 2), ("finetune", 1), ("finetune", 2)]


def test_the_stored_model_is_the_fine_tuned_one(cell):
    config, record, folder = cell
    detector, _ = build(config.model, tuple("abcdefgh"))
    small = dcodp.load(detector.network, folder / "model.safetensors")
    assert sum(p.numel() for p in small.parameters()) == record.finetuned["parameters"]
    plan = dcodp.PrunePlan.from_json(folder / "plan.json")
    assert plan.channel_ratio == pytest.approx(0.5, abs=0.01)


def test_a_cell_that_is_there_is_not_computed_again(cell):
    config, record, folder = cell
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert run_cell(config).finetuned == record.finetuned
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_what_was_not_mirrored_is_by_the_next_call(cell, monkeypatch):
    """As after a lost connection: the mark of the mirror is not there."""
    config, record, _ = cell
    sent = []
    monkeypatch.setattr(running, "sync", lambda *given: sent.append(given))
    run_cell(config)
    ((settings, told, results, group),) = sent
    assert (settings, told.run_id, group) == (config.wandb, record.run_id, config.wandb.group)
    assert results == Path(config.paths.results)


def test_another_ratio_shares_the_dense_net_and_the_scores(cell, monkeypatch):
    config, record, _ = cell
    ((_, other),) = cells(
        ROOT / "conf",
        [*SMALL, f"paths.data={config.paths.data}", f"paths.results={config.paths.results}", "wandb.mode=disabled",
         "ratio=0.2", "finetune.epochs=0"],
    )  # fmt: skip
    monkeypatch.setattr("dcodp.pipeline.calibrating.gather", None)  # would fail if the scores were computed again
    again = run_cell(other)
    assert again.dense == record.dense
    assert again.finetuned is None  # nothing was fine-tuned, so nothing is claimed
    assert record.pruned["parameters"] < again.pruned["parameters"] < record.dense["parameters"]


class Stop(Exception):
    """Stands for a kill: nothing of ours handles it."""


@pytest.mark.parametrize("where", ["train", "score", "finetune"])
def test_interrupted_and_started_again_gives_the_same_numbers(cell, tmp_path, monkeypatch, where):
    _, record, folder = cell
    config = configured(tmp_path)
    with monkeypatch.context() as patch:
        interrupt(patch, where)
        with pytest.raises(Stop):
            run_cell(config)
    stored = json.loads(next((tmp_path / "results/runs").glob("*/record.json")).read_text())
    assert stored["status"] == "failed" and "Stop" in stored["error"]
    resumed = run_cell(config)
    assert metrics(resumed) == metrics(record)
    assert same_weights(tmp_path / "results/runs" / resumed.run_id, folder)


def interrupt(patch, where):
    """Raise in the middle of a stage: in the second epoch of a training, after the first batch of the scoring. Returns
    the epochs that were begun."""
    import dcodp.pipeline.calibrating as calibrating
    from dcodp.data.augment import TrainingBatches

    if where == "score":
        real = calibrating.save_tensors

        def stop_after_partial(tensors, path, header=None):
            real(tensors, path, header)
            if path.name.startswith("partial"):
                raise Stop

        patch.setattr(calibrating, "save_tensors", stop_after_partial)
        return []
    real_epoch, seen = TrainingBatches.epoch, []

    def epoch(self, number, *args, **kwargs):
        seen.append(self.before + number)
        for i, batch in enumerate(real_epoch(self, number, *args, **kwargs)):
            if i == 1 and len(seen) == (2 if where == "train" else 4):
                raise Stop
            yield batch

    patch.setattr(TrainingBatches, "epoch", epoch)
    return seen


@pytest.mark.slow
def test_killed_outright_and_started_again_gives_the_same_numbers(cell, tmp_path):
    """SIGKILL to the real command in each long stage in turn."""
    _, record, folder = cell
    places = [f"paths.data={tmp_path / 'data'}", f"paths.results={tmp_path / 'results'}", "wandb.mode=disabled"]
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, *places]
    results = tmp_path / "results"
    for sign in ("cache/dense/*/last.ckpt", "cache/evidence/*/partial*.safetensors", "runs/*/finetune/last.ckpt"):
        process = subprocess.Popen(command, cwd=tmp_path)
        while process.poll() is None and not list(results.glob(sign)):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    stored = json.loads(next((results / "runs").glob("*/record.json")).read_text())
    assert stored["status"] == "done" and metrics(read_record(run_folder(results, stored["run_id"]))) == metrics(record)
    assert same_weights(results / "runs" / stored["run_id"], folder)


@pytest.mark.parametrize("overrides", [("target=flops:0.5",), ("target=parameters:0.3", "allocation=global")])
def test_a_target_takes_the_place_of_the_ratio(cell, overrides):
    _, _, folder = cell
    record = run_cell(configured(folder.parents[2], *overrides))
    kind, share = overrides[0].removeprefix("target=").split(":")
    assert abs(record.pruned[kind] / record.dense[kind] - float(share)) <= 0.01
    assert record.run_id == run_cell(configured(folder.parents[2], *overrides, "ratio=0.3")).run_id


def test_steps_share_the_epochs_and_end_in_one_plan(cell, monkeypatch):
    """Killed in the second step's training and started again: every epoch is there once, and is another than before."""
    _, _, folder = cell
    config = configured(folder.parents[2], "steps=2")
    with monkeypatch.context() as patch:
        seen = interrupt(patch, "train")  # the dense net is there: the second epoch is the second step's
        with pytest.raises(Stop):
            run_cell(config)
    assert seen == [0, 1]
    record = run_cell(config)
    found = folder.parent / record.run_id
    rows = [json.loads(line) for line in (found / "metrics.jsonl").read_text().splitlines()]
    tuned = [row for row in rows if row["stage"] == "finetune"]
    assert [row["epoch"] for row in tuned] == [1, 2]
    blocks = [stage["name"] for stage in record.stages]
    assert [blocks.count(name) for name in ("pruned", "finetuned")] == [2, 2]
    detector, _ = build(config.model, tuple("abcdefgh"))
    small = dcodp.prune(detector.network, dcodp.PrunePlan.from_json(found / "plan.json")).state_dict()
    stored = load_tensors(found / "model.safetensors")[0]
    assert {name: stored[name].shape for name in small} == {name: value.shape for name, value in small.items()}


def test_thinet_refits_the_next_layers(cell):
    config, _, folder = cell
    record = run_cell(configured(folder.parents[2], "importance=thinet", "finetune.epochs=0"))
    found = folder.parent / record.run_id
    detector, _ = build(config.model, tuple("abcdefgh"))
    small = dcodp.load(detector.network, found / "model.safetensors").state_dict()
    (dense,) = (folder.parents[1] / "cache" / "dense").glob("*/best.safetensors")
    stored, _ = load_tensors(dense)
    detector.network.load_state_dict(stored)
    sliced = dcodp.prune(detector.network, dcodp.PrunePlan.from_json(found / "plan.json")).state_dict()
    changed = {name for name in small if not torch.equal(small[name], sliced[name])}
    assert changed and all(name.endswith("weight") and small[name].dim() == 4 for name in changed)
    scales = small["model.1.conv.weight"] / sliced["model.1.conv.weight"]  # one factor per input channel
    torch.testing.assert_close(scales, scales[:1, :, :1, :1].expand_as(scales))


def test_slimming_trains_a_net_of_its_own_and_the_record_says_what_it_left_alone(tmp_path):
    small = ("importance=slimming", "finetune.epochs=0", "train.epochs=1")
    sparse = run_cell(configured(tmp_path, *small))
    (row,) = (tmp_path / "results/runs" / sparse.run_id / "metrics.jsonl").read_text().splitlines()
    assert json.loads(row)["loss_sparsity"] > 0 and "sparsity penalty" not in " ".join(sparse.notes)

    small = (*small[:2], "train.epochs=0", "model=faster_rcnn_tiny_test")
    never = run_cell(configured(tmp_path, *small))
    assert "not trained with its sparsity penalty" in " ".join(never.notes)
    assert "groups have no score by slimming and were left unpruned" in " ".join(never.notes)
    assert 0 < never.provenance["pruning"]["channels_removed"] < 0.5


def test_scores_that_are_all_alike_are_reported(cell):
    _, _, folder = cell
    record = run_cell(configured(folder.parents[2], "importance=rank", "finetune.epochs=0"))
    (note,) = [note for note in record.notes if note.startswith("rank scores all channels alike in")]
    assert "so the later ones went: " in note


def test_an_importance_that_cannot_be_is_refused_before_anything_is_trained(tmp_path):
    config = configured(tmp_path, "importance.name=nose")
    with pytest.raises(InputError, match="importance=nose is not known"):
        run_cell(config)
    assert not (tmp_path / "results").exists()


def test_two_cells_at_once_compute_the_dense_net_once(tmp_path):
    places = [f"paths.data={tmp_path / 'data'}", f"paths.results={tmp_path / 'results'}", "wandb.mode=disabled"]
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, *places, "train.epochs=1", "finetune.epochs=0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([*command, f"ratio={r}"], cwd=tmp_path, env=env) for r in (0.2, 0.7)]
    assert [p.wait(timeout=300) for p in both] == [0, 0]
    results = tmp_path / "results"
    assert len(list(results.glob("cache/dense/*/done.json"))) == 1
    dense = [json.loads(p.read_text())["dense"] for p in results.glob("runs/*/record.json")]
    assert len(dense) == 2 and dense[0] == dense[1]


def test_bad_input_leaves_nothing_that_a_later_run_trusts(tmp_path):
    config = configured(tmp_path, f"model.weights={tmp_path / 'weights.pt'}")
    (tmp_path / "weights.pt").write_text("not a checkpoint")
    with pytest.raises(InputError, match=r"weights\.pt"):
        run_cell(config)
    assert not list((tmp_path / "results").rglob("done.json"))
    stored = json.loads(next((tmp_path / "results/runs").glob("*/record.json")).read_text())
    assert stored["status"] == "failed" and stored["dense"] is None


@pytest.mark.parametrize("dataset", ["voc2012", "coco2017"])
def test_missing_data_says_what_to_give(tmp_path, dataset):
    config = configured(tmp_path, f"dataset={dataset}", f"paths.data={tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="nowhere does not exist; give the folder"):
        run_cell(config)


def test_the_command_line_reports_bad_input_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "ratio=1.3"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: ratio=1.3 is out of range; use 0.0 ≤ ratio < 1.0\n"
    assert list(tmp_path.iterdir()) == []


def test_the_dense_net_teaches_and_the_control_starts_from_other_random_weights(cell):
    """Both share the cell's dense net; scratch differs from what pruning left, and is the same at every attempt."""
    config, _, folder = cell
    results = folder.parents[2]
    taught = run_cell(configured(results, "finetune.distill=0.5", "finetune.labels=false", "finetune.epochs=1"))
    rows = [json.loads(x) for x in (folder.parent / taught.run_id / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["stage"] == "finetune"]
    losses = {key: value for key, value in row.items() if key.startswith("loss")}
    assert set(losses) == {"loss", "loss_distill_features", "loss_distill_cls", "loss_distill_dfl"}
    assert all(value > 0 for value in losses.values())
    assert len(list((folder.parents[1] / "cache" / "dense").glob("*/done.json"))) == 1

    still = (
        "control=scratch",
        "finetune.epochs=1",
        "finetune.lr=0",
        "finetune.ema_ramp=0",
    )  # keeps what it starts from
    control = run_cell(configured(results, *still))
    assert any("control=scratch" in note for note in control.notes)
    found = load_tensors(folder.parent / control.run_id / "model.safetensors")[0]
    plan = dcodp.PrunePlan.from_json(folder.parent / control.run_id / "plan.json")
    (stored,) = (folder.parents[1] / "cache" / "dense").glob("*/best.safetensors")
    detector, _ = build(config.model, tuple("abcdefgh"))
    detector.network.load_state_dict(load_tensors(stored)[0])
    sliced = dcodp.prune(detector.network, plan).state_dict()
    first = "model.2.cv1.conv.weight"
    torch.manual_seed(config.seed)
    lottery = dcodp.prune(build(config.model, tuple("abcdefgh"))[0].network, plan).state_dict()
    assert not torch.allclose(found[first], sliced[first], atol=1e-2)
    assert not torch.allclose(found[first], lottery[first], atol=1e-2)
    again = Cell(config, [torch.device("cpu")], {}, control, None, None)
    again.nets.dense, again.nets.plan = detector, plan
    start_from_scratch(again)
    torch.testing.assert_close(again.nets.now.network.state_dict()[first], found[first])
