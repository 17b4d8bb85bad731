"""Studies: the records of many runs in one file, with the same numbers."""

import json
import runpy
from pathlib import Path

import pytest

from dcodp.errors import InputError
from dcodp.records import (
    Record,
    append_metrics,
    load_records,
    read_study,
    record_of,
    run_folder,
    write_record,
    write_study,
)

KEEP = Path(__file__).resolve().parents[1] / "results" / "keep.py"
GROUPS = {"stem": {"channels": 8, "layers": ["stem", "twin"]}, "neck": {"channels": 4, "layers": ["neck"]}}


def record(run_id="a", groups=GROUPS, **provenance) -> Record:
    tree = {
        "run_id": run_id,
        "status": "done",
        "config": {"model": {"name": "net"}, "ratio": 0.1 + 0.2},
        "dense": {"map50": 1 / 3, "ap_small": -1, "flops": 7, "per_class": {"cat": {"map50": 1e-17}}},
        "provenance": {"libraries": {"torch": "2"}, "pruning": {"groups": 2, "coupling": groups}, **provenance},
        "notes": ["a note"],
    }
    return record_of(tree, Path("made_up"))


def test_a_study_is_read_without_loss(tmp_path):
    records = [record("a"), record("b", groups=None), record("c", pruning={"coupling": {}}), Record("d", "failed")]
    write_study(tmp_path, records)
    assert read_study(tmp_path) == load_records(tmp_path) == records


def test_a_study_keeps_no_place_of_the_machine_that_made_it(tmp_path):
    made = record()
    made.config |= {
        "paths": {"data": "../elsewhere/images", "results": "/scratch/runs", "own": None},
        "model": {"name": "net", "weights": "/scratch/net.pt", "backbone_weights": None, "variant": "n"},
        "dataset": {"file": "~/cells/data.yaml", "train": "VOC2007/trainval", "val": "val"},
    }
    write_study(tmp_path, [made])
    (kept,) = read_study(tmp_path)
    assert kept.config["paths"] == {"data": "images", "results": "runs", "own": None}
    assert kept.config["model"] == {"name": "net", "weights": "net.pt", "backbone_weights": None, "variant": "n"}
    assert kept.config["dataset"] == {"file": "data.yaml", "train": "VOC2007/trainval", "val": "val"}
    assert made.config["paths"]["results"] == "/scratch/runs"


@pytest.mark.parametrize("study", sorted(KEEP.parent.glob("*/records.json")), ids=lambda path: path.parent.name)
def test_what_is_committed_names_no_place_of_a_machine(study):
    def texts(tree):
        if isinstance(tree, dict | list):
            for part in tree.values() if isinstance(tree, dict) else tree:
                yield from texts(part)
        elif isinstance(tree, str):
            yield tree

    assert [text for text in texts(json.loads(study.read_text())) if text.startswith(("/", "../", "~"))] == []


def test_what_a_detectors_records_have_in_common_is_stored_once(tmp_path):
    other = {name: GROUPS[name] for name in ("neck", "stem")}  # the order of groups is not lost either
    records = [record("a"), record("b"), record("c", groups=other)]
    text = write_study(tmp_path, records).read_text()
    tree = json.loads(text)
    assert list(tree["shared"]) == ["net libraries 1", "net coupling 1", "net coupling 2"]
    assert [r["provenance"]["pruning"]["coupling"] for r in tree["records"]] == [f"net coupling {i}" for i in (1, 1, 2)]
    assert len(text.splitlines()) == len(records) + 2  # one a line
    assert [list(r.provenance["pruning"]["coupling"]) for r in read_study(tmp_path)] == [
        *(["stem", "neck"], ["stem", "neck"], ["neck", "stem"])
    ]
    write_study(tmp_path / "again", read_study(tmp_path))
    assert (tmp_path / "again" / "records.json").read_text() == text


def test_a_run_comes_before_the_studys_record_of_its_id(tmp_path):
    write_study(tmp_path, [record("b"), record("a")])
    write_record(run_folder(tmp_path, "b"), record("b", groups=None))
    first, second = load_records(tmp_path)
    assert (first.run_id, second.run_id) == ("a", "b") and second.provenance["pruning"]["coupling"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not whole JSON"),
        ("[]", "not a study"),
        ('{"format": 2, "records": []}', "later format"),
        ('{"format": 1, "records": [{"run_id": "a"}]}', "provenance"),
        ('{"format": 1, "records": [{"provenance": {"libraries": "net 1"}}]}', "net 1"),
        ('{"format": 1, "records": [{"provenance": {}}]}', "run_id"),
    ],
)
def test_a_damaged_study_is_one_line(tmp_path, text, told):
    (tmp_path / "records.json").write_text(text)
    with pytest.raises(InputError, match=r"records\.json") as caught:
        load_records(tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_what_has_not_ended_or_cannot_be_read_makes_no_study(tmp_path):
    with pytest.raises(InputError, match="b cannot be read or are still running"):
        write_study(tmp_path, [record("a"), Record("b", "running")])
    assert not (tmp_path / "records.json").exists()


def test_the_runs_of_a_results_folder_become_a_study(tmp_path, capsys):
    results, study = tmp_path / "results", tmp_path / "study"
    for name in ("a", "b"):
        write_record(run_folder(results, name), record(name))
        append_metrics(run_folder(results, name), {"epoch": 1, "loss": 0.1})
    keep = runpy.run_path(str(KEEP))["main"]
    keep([str(results), str(study)])
    assert load_records(study) == load_records(results) and "2 records" in capsys.readouterr().out
    lines = (study / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"run_id": n, "epoch": 1, "loss": 0.1} for n in ("a", "b")]
    with pytest.raises(InputError, match="no records in"):
        keep([str(tmp_path / "nothing"), str(study)])
