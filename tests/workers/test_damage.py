"""Every artefact of a cell cut short at random bytes: made again or refused with a line, never trusted."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import sweeps
import torch

from dcodp.compose import cells, register
from dcodp.config import TrainSettings
from dcodp.errors import InputError
from dcodp.pipeline import memory, run_cell
from dcodp.records import read_record, run_folder

CONF = Path(__file__).resolve().parents[2] / "conf"
# read by people or written anew in any case; the log of a run tells of every attempt
NOT_READ = ("log.txt", "pictures.png", "plan.json", "model.safetensors", "VOCdevkit")
WORDS = (
    "method=strong", "allocation.sensitivity=2", "model=retinanet_tiny_test", "finetune.epochs=2", "train.epochs=2"
)  # fmt: skip
# one artefact of each kind: where it lies, what its name begins with
KINDS = (
    *(("cache", name) for name in ("best.safetensors", "done.json", "evaluation", "last.ckpt", "metrics.jsonl")),
    *(("cache", name) for name in ("predictions", "evidence", "scores.safetensors", "sensitivity")),
    *(("runs", name) for name in ("best.safetensors", "done.json", "evaluation", "last.ckpt", "metrics.jsonl")),
    *(("runs", name) for name in ("predictions", "record.json", "repaired.safetensors")),
)
register()


def configured(folder: Path):
    ((_, config),) = cells(CONF, [*sweeps.SMALL, *WORDS, *sweeps.places(folder)])
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cell of the method with most artefacts, and its outcome."""
    folder = tmp_path_factory.mktemp("whole")
    run_cell(configured(folder))
    return folder, sweeps.outcome(folder)


def artefacts(folder: Path) -> list[Path]:
    found = [path for path in (folder / "results").rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path.relative_to(folder) for path in found if path.name not in NOT_READ)


def as_if_unfinished(folder: Path) -> None:
    """The run's record says that it was interrupted, so that every artefact is looked at again."""
    for path in (folder / "results" / "runs").glob("*/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted", "stages": []}))


def attempt(whole, place: Path, artefact: Path, size: int) -> str:
    """ "same" or "refused"; anything else is an assertion's."""
    folder, wanted = whole
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    if artefact.name != "record.json":
        as_if_unfinished(place)
    before = (place / artefact).read_bytes()
    os.truncate(place / artefact, size)
    try:
        run_cell(configured(place))
    except InputError as error:
        assert "\n" not in str(error) and (artefact.name in str(error) or artefact.parent.name in str(error)), error
        return "refused"
    if artefact.name in ("metrics.jsonl", "record.json"):
        assert (place / artefact).read_bytes().rstrip() == before.rstrip() or artefact.parts[1] == "runs"
    found = sweeps.outcome(place)
    assert found == wanted, artefact
    return "same"


@pytest.fixture(autouse=True)
def warned(caplog):
    """Its handler keeps what is logged from the terminal."""


def kinds(folder: Path) -> dict[tuple[str, str], Path]:
    """As KINDS, with an artefact of each."""
    found = {}
    for path in artefacts(folder):
        name = "evidence" if "evidence" in path.parts else path.name.partition("-")[0]
        found[path.parts[1], name] = path
    return found


def test_there_is_every_kind_and_no_other(whole):
    assert set(kinds(whole[0])) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_cut_at_fifty_random_bytes(whole, tmp_path, kind):
    """All kinds take 13 minutes of one core."""
    artefact, chance = kinds(whole[0])[kind], random.Random("-".join(kind))
    size = (whole[0] / artefact).stat().st_size
    cuts = list(dict.fromkeys([0, size - 1, *(chance.randrange(size) for _ in range(48))]))
    told = [attempt(whole, tmp_path / "cut", artefact, cut) for cut in cuts]
    print(f"{kind}: of {len(cuts)} cuts {told.count('same')} made again, {told.count('refused')} refused")


@pytest.mark.parametrize(
    "name", ["scores.safetensors", "repaired.safetensors", "evaluation", "predictions", "done.json"]
)
def test_cut_in_the_middle(whole, tmp_path, name):
    artefact = next(path for path in artefacts(whole[0]) if path.name.startswith(name))
    outcome = attempt(whole, tmp_path / "cut", artefact, (whole[0] / artefact).stat().st_size // 2)
    assert outcome == ("refused" if name == "done.json" else "same")


def test_lines_of_a_training_that_are_gone_are_missed(whole, tmp_path):
    artefact = next(p for p in artefacts(whole[0]) if p.parts[1] == "cache" and p.name == "metrics.jsonl")
    first = (whole[0] / artefact).read_text().index("\n") + 1
    assert attempt(whole, tmp_path / "cut", artefact, first) == "refused"


def test_a_done_record_is_whole_or_refused(whole, tmp_path):
    artefact = next(path for path in artefacts(whole[0]) if path.name == "record.json")
    assert attempt(whole, tmp_path / "cut", artefact, 100) == "refused"
    shutil.rmtree((tmp_path / "cut" / artefact).parent)  # as the line says
    record = run_cell(configured(tmp_path / "cut"))
    assert read_record(run_folder(tmp_path / "cut" / "results", record.run_id)).status == "done"
    assert sweeps.outcome(tmp_path / "cut") == whole[1]


def test_out_of_memory_names_the_batch_that_fits():
    tried = []

    def fits(size: int) -> None:
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 …")

    def full(fits, batch=16):
        with memory.explained("train.batch", batch, torch.device("cpu"), fits):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 …")

    with pytest.raises(InputError, match=r"^train.batch=16 does not fit .*\(CUDA out of memory\); train.batch=2 fits$"):
        full(fits)
    assert tried == [8, 4, 2]
    with pytest.raises(InputError, match="not even 1 fits: lower image_size"):
        full(lambda size: fits(9))
    with pytest.raises(InputError, match=r"set train\.batch=8, or lower image_size"):
        full(None)
    with pytest.raises(ValueError, match="other"), memory.explained("train.batch", 4, torch.device("cpu")):
        raise ValueError("other")


def test_the_trial_of_a_batch_is_a_whole_step(whole):
    from dcodp.data.augment import TrainingBatches
    from dcodp.data.splits import load
    from dcodp.detectors.registry import build

    config = configured(whole[0])
    images = load(config.dataset, Path(config.paths.data), "train")
    detector, _ = build(config.model, images.classes)
    batches = TrainingBatches(images, config.image_size, TrainSettings(batch=8), 0)
    seen, real = [], detector.training_outputs
    detector.training_outputs = lambda batch: seen.append(len(batch.images)) or real(batch)
    weights = {name: tensor.clone() for name, tensor in detector.network.named_parameters()}
    memory.training_step(detector, batches, {}, torch.device("cpu"))(2)
    assert seen == [2] and all(torch.equal(weights[name], p) for name, p in detector.network.named_parameters())


def test_training_that_does_not_fit_is_one_line(whole, tmp_path, monkeypatch):
    """Through the whole pipeline: a net whose losses take the memory of three images."""
    from dcodp.training.objective import Objective

    real = Objective.forward

    def forward(self, given):
        if len(given.batch.images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(self, given)

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(InputError, match=r"^train\.batch=4 does not fit .*; train\.batch=2 fits$"):
        run_cell(configured(tmp_path))
    (record,) = [read_record(run_folder(tmp_path / "results", p.name)) for p in (tmp_path / "results/runs").iterdir()]
    assert record.status == "failed" and "train.batch=2 fits" in (record.error or "")
