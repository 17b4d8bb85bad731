"""The coupling groups that the page shows."""

import json

import pytest

from dcodp.records import run_folder
from dcodp.report.coupling import Group, couplings

NAMED = {"stem": {"channels": 8, "layers": ["stem", "twin"]}, "neck": {"channels": 4, "layers": ["neck"]}}


@pytest.fixture
def named(cell):
    record = cell()
    record.provenance["pruning"] |= {"coupling": NAMED, "layers_frozen": {"head": "an output"}}
    return record


def write_plan(folder, run_id, **plan):
    path = run_folder(folder, run_id).plan
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"format": 1, **plan}))


def test_groups_with_their_layers_come_from_the_record_that_names_them(cell, named, tmp_path):
    (found,) = couplings(tmp_path, [cell(ratio=0.2), named])
    assert found.groups == (Group("stem", 8, ("stem", "twin")), Group("neck", 4, ("neck",)))
    assert (found.model, found.run_id, found.frozen, found.kept) == ("yolov8n", named.run_id, {"head": "an output"}, {})


def test_kept_channels_come_from_the_plans_beside_the_records(cell, named, tmp_path):
    more = cell(ratio=0.2, importance="l1", interlayer=False)
    write_plan(tmp_path, named.run_id, groups={"stem": [0, 1], "neck": [3]})
    write_plan(tmp_path, more.run_id, groups={"stem": [0, 1, 2, 3, 4, 5]})
    (found,) = couplings(tmp_path, [named, more])
    assert found.kept == {"dcodp, 50 %": {"stem": 2, "neck": 1}, "l1, uncoupled, 20 %": {"stem": 6}}


def test_another_seed_that_keeps_others_has_a_column_of_its_own(cell, named, tmp_path):
    same, other = cell(seed=1), cell(seed=2)
    for record, stem in ((named, [0, 1]), (same, [4, 5]), (other, [0, 1, 2])):
        write_plan(tmp_path, record.run_id, groups={"stem": stem})
    (found,) = couplings(tmp_path, [named, same, other])
    assert found.kept == {"dcodp, 50 %": {"stem": 2}, f"dcodp, 50 % ({other.run_id})": {"stem": 3}}


def test_without_names_in_the_record_the_plan_names_the_groups(cell, tmp_path):
    record = cell()
    write_plan(tmp_path, record.run_id, groups={"stem": [0]}, channels={"stem": 2})
    (found,) = couplings(tmp_path, [record])
    assert found.groups == (Group("stem", 2, ()),)


def test_with_neither_the_detector_is_listed_without_groups(cell, tmp_path):
    broken, other = cell(), cell(model="yolov7")
    path = run_folder(tmp_path, broken.run_id).plan
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert [(found.model, found.groups) for found in couplings(tmp_path, [broken, other])] == [
        ("yolov7", ()),
        ("yolov8n", ()),
    ]


def test_what_was_not_pruned_has_no_groups(cell, tmp_path):
    record = cell()
    del record.provenance["pruning"]
    assert couplings(tmp_path, [record]) == []
