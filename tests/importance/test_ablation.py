"""What the comparison of criteria stands on: the same grid at equal ratio and at matched FLOPs, dense nets, chance."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

import dcodp
from dcodp.compose import cells, register
from dcodp.config import Config
from dcodp.detectors.registry import build
from dcodp.errors import InputError
from dcodp.identity import dense_key, run_id, scores_key
from dcodp.report.layouts import TableLayout, load_layouts

ROOT = Path(__file__).resolve().parents[2]
register()


@cache
def configs(*overrides: str) -> list[Config]:
    return [config for _, config in cells(ROOT / "conf", overrides)]


def test_matched_flops_is_the_grid_of_the_ablation_from_the_same_dense_nets_and_scores():
    both = configs("experiment=table4_ablation", "seed=0")
    equal, matched = ([c for c in both if bool(c.target) == targeted] for targeted in (False, True))
    shared = [(dense_key(c), scores_key(c), c.interlayer) for c in matched]
    assert shared == [(dense_key(c), scores_key(c), c.interlayer) for c in equal]
    assert {(c.target, c.allocation.name) for c in matched} == {("flops:0.25", "uniform")}
    assert len({run_id(c) for c in (*equal, *matched)}) == 2 * len(equal)


def test_only_slimming_trains_its_dense_net_with_sparsity_and_never_fine_tunes_with_it():
    found = configs("experiment=table4_ablation", "seed=0")
    assert {(c.importance.name, c.train.sparsity, c.finetune.sparsity) for c in found} == {
        ("slimming", 1e-4, 0.0),
        *((name, 0.0, 0.0) for name in ("thinet", "hrank", "random", "dcodp")),
    }
    assert sorted(Counter(dense_key(c) for c in found).values()) == [4, 16]


def test_the_sparsity_can_be_switched_off_and_then_the_dense_net_is_everybodys():
    (off,), (other,) = configs("importance=slimming", "train.sparsity=0"), configs("importance=l1")
    assert dense_key(off) == dense_key(other)
    (strong,) = configs("importance=slimming", "train.sparsity=0.01", "schedule=paper_voc")
    assert strong.train.sparsity == 0.01


def test_every_seed_draws_its_own_images_and_its_own_random_choice():
    for name in ("random", "dcodp", "slimming"):
        assert [c.importance.seed for c in configs(f"importance={name}", "seed=0,3")] == [0, 3]
    assert configs("importance=random", "seed=3", "importance.seed=1")[0].importance.seed == 1


def test_chance_is_in_every_table_that_compares_criteria():
    layouts = [x for x in load_layouts(ROOT / "experiments") if isinstance(x, TableLayout)]
    comparing = {x.name: x.rows["importance"] for x in layouts if len(x.rows.get("importance", ())) > 1}
    assert comparing.keys() == {"table4_ablation", "ablation_shapes", "ablation_coco"}
    assert all("random" in names for names in comparing.values())


@pytest.mark.parametrize("interlayer", [False, True])
@pytest.mark.parametrize("round_to", [1, 8])
def test_yolov8n_meets_the_target_of_the_ablation_with_and_without_coupling(interlayer, round_to):
    graph, scores = scored("yolov8n", "random")
    plan = dcodp.select(graph, scores, interlayer=interlayer, round_to=round_to, target="flops:0.25")
    assert graph.flops(plan.groups) / graph.flops() == pytest.approx(0.25, abs=0.01)
    untouched = [g.name for g in graph.groups if g.coupled and len(plan.groups[g.name]) == g.channels]
    assert bool(untouched) != interlayer


@pytest.mark.parametrize("interlayer", [False, True])
def test_slimming_cannot_meet_it_where_most_layers_have_no_batch_norm_and_says_what_it_reaches(interlayer):
    graph, scores = scored("faster_rcnn", "slimming")
    with pytest.raises(InputError, match=r"flops:0.25 cannot be met: .* the smallest net 0\.[67]"):
        dcodp.select(graph, scores, interlayer=interlayer, target="flops:0.25")


@cache
def scored(model: str, criterion: str):
    """A detector's coupling graph and scores from its random weights."""
    (config,) = configs(f"model={model}")
    torch.manual_seed(0)
    detector, _ = build(config.model, tuple(map(str, range(20))))
    network = detector.network.eval()
    graph = dcodp.trace(network, detector.example_inputs(256), outputs=detector.outputs)
    return graph, dcodp.score(network, graph, criterion)
