"""The list of criteria: names, files, configurations, and criteria of one's own."""

from pathlib import Path

import pytest
import torch
import yaml

import dcodp
from dcodp.calibration.maps import MapScores
from dcodp.calibration.weights import Weights
from dcodp.errors import InputError
from dcodp.importance import Criterion, criteria, criterion, names, register
from dcodp.importance.criterion import check

CONF = Path(__file__).resolve().parents[2] / "conf" / "importance"


def test_all_are_there_and_say_what_they_need():
    needs = {
        "nothing": "random",
        "weights": "fpgm l1 l2 lamp slimming",
        "maps": "chip dcodp dcodp_greedy hrank rank",
        "consumer inputs": "lasso second_order thinet",
        "gradients": "grasp localization snip taylor",
    }
    wanted = {name: need for need, named in needs.items() for name in named.split()}
    assert {name: criterion(name).sees for name in names()} == wanted


def test_each_has_a_configuration_of_its_name():
    trees = {path.stem: yaml.safe_load(path.read_text()) for path in CONF.glob("*.yaml")}
    assert {stem: tree.get("importance", tree)["name"] for stem, tree in trees.items()} == {n: n for n in names()}


def test_a_name_that_is_not_known():
    with pytest.raises(InputError, match="importance=l3 is not known; use one of chip, dcodp"):
        criterion("l3")


def test_one_of_ones_own(network, graph, batches, monkeypatch):
    monkeypatch.setattr(criteria.CRITERIA, "registered", {})
    register("largest", Criterion((MapScores(per_image=lambda maps: maps.amax((2, 3))),)))
    register("first_weight", Criterion((Weights(),), lambda weight: weight[:, 0]))
    found = dcodp.score(network, graph, ["largest", "first_weight"], batches, aggregate="mean")
    assert torch.equal(found["first_weight"]["down"], network.down.weight[:, 0, 0, 0].double())
    images = torch.cat([images for (images,) in batches])
    first = network.norm(network.stem(images)).relu()
    third = network.down(first + network.branch(first).relu()).relu()
    torch.testing.assert_close(found["largest"]["down"], third.amax((2, 3)).double().mean(0))
    for taken in ("largest", "l1"):
        with pytest.raises(InputError, match=f"a criterion {taken} exists already"):
            register(taken, criterion("l1"))


@pytest.mark.parametrize("name", ["slimming", "lamp"])
def test_scores_meet_as_they_are_only_where_layers_are_not_added_up(name):
    for aggregate in ("mean", "max"):
        check(name, criterion(name), aggregate, ranked=True)
    with pytest.raises(InputError, match=r"use importance\.aggregate=mean or max"):
        check(name, criterion(name), "sum", ranked=True)
    check("random", criterion("random"), "sum", ranked=True)
