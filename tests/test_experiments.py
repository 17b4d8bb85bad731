"""The overlays of the paper's tables and figures: which cells they ask for, and that Hydra launches the same."""

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dcodp.compose import cells, register
from dcodp.config import Config, to_dict
from dcodp.errors import InputError
from dcodp.identity import dense_key, run_id
from dcodp.method import Method
from dcodp.report.labels import declared
from dcodp.report.layouts import FOUND, TableLayout, load_layouts
from dcodp.report.methods import budget_name, method_of

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
OVERLAYS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
DETECTORS = ("yolov8n", "yolov7", "faster_rcnn")
register()


@cache
def asked(*overrides: str) -> tuple[tuple[list[str], Config], ...]:
    return tuple(cells(CONF, overrides))


def configs(*overrides: str) -> list[Config]:
    return [config for _, config in asked(*overrides)]


@pytest.mark.parametrize(
    ("name", "dataset", "epochs"),
    [("table1_voc2007", "voc2007", 100), ("table2_voc2012", "voc2012", 100), ("table3_coco", "coco2017", 150)],
)
def test_the_main_tables_are_three_detectors_at_three_ratios(name, dataset, epochs):
    found = configs(f"experiment={name}")
    assert [(c.model.name, c.ratio) for c in found] == [(m, r) for m in DETECTORS for r in (0.2, 0.5, 0.7)]
    for c in found:
        assert (c.dataset.name, c.importance.name, c.interlayer, c.seed) == (dataset, "dcodp", True, 0)
        assert (c.train.epochs, c.finetune.epochs, c.image_size) == (epochs, 20, 640)
        assert c.experiment_name == c.wandb.group == name


def test_the_ablation_is_every_criterion_with_and_without_coupling_from_the_same_dense_nets():
    found = configs("experiment=table4_ablation")
    grid = Counter((c.importance.name, c.interlayer) for c in found)
    names = ("slimming", "thinet", "hrank", "random", "dcodp")
    assert grid == {(name, interlayer): 6 for name in names for interlayer in (False, True)}
    assert {(c.seed, c.target) for c in found} == {(s, t) for s in (0, 1, 2) for t in (None, "flops:0.25")}
    assert {c.ratio for c in found} == {0.5}


def test_the_ablations_of_other_data_are_the_same_grid():
    def grid(name: str) -> list:
        return [(c.importance.name, c.interlayer, bool(c.target), c.seed) for c in configs(f"experiment={name}")]

    assert grid("ablation_shapes") == grid("ablation_coco") == grid("table4_ablation")
    assert {(c.ratio, c.target) for c in configs("experiment=ablation_coco")} == {(0.1, None), (0.1, "flops:0.8")}


def test_the_ways_to_join_layers_share_dense_nets_with_the_ablation():
    ways, ablation = configs("experiment=aggregation_shapes"), configs("experiment=ablation_shapes")
    assert {dense_key(c) for c in ways} <= {dense_key(c) for c in ablation}
    assert {run_id(c) for c in ways if c.importance.aggregate == "sum"} <= {run_id(c) for c in ablation}


def test_the_curve_goes_from_10_to_70_percent_and_shares_cells_with_table_1():
    found = configs("experiment=figure7_ratio")
    assert Counter(c.model.name for c in found) == dict.fromkeys(DETECTORS, 7)
    assert sorted({c.ratio for c in found}) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert {run_id(c) for c in configs("experiment=table1_voc2007")} <= {run_id(c) for c in found}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_toy_size_is_the_same_grid(name):
    paper = [c for c in configs(f"experiment={name}") if c.model.name == "yolov8n" and c.seed == 0]
    toy = configs(f"experiment={name}", "schedule=smoke", "model=yolov8n", "seed=0")  # a part, to save time

    def cell(c: Config):
        return c.model.name, c.dataset.name, c.importance.name, c.interlayer, c.ratio, c.seed

    assert [cell(c) for c in toy] == [cell(c) for c in paper]
    assert {(c.image_size, c.train.epochs, c.finetune.epochs, c.dataset.val_limit) for c in toy} == {(96, 1, 1, 16)}


def test_what_is_typed_wins_over_the_overlay():
    found = configs("experiment=table1_voc2007", "model=yolov7_tiny_test", "ratio=0.3,0.6", "dataset=voc2012")
    assert [(c.model.name, c.ratio, c.dataset.name) for c in found] == [
        ("yolov7_tiny_test", ratio, "voc2012") for ratio in (0.3, 0.6)
    ]
    (single,) = configs("experiment=table1_voc2007", "model=yolov8n", "ratio=0.5")
    assert single.experiment_name == "table1_voc2007"
    assert len(configs("experiment=table1_voc2007", "seed=0,1,2", "model=yolov8n")) == 9


def test_several_experiments_in_one_sweep_are_refused():
    with pytest.raises(InputError, match="one after the other"):
        cells(CONF, ["experiment=table1_voc2007,figure7_ratio"])


@pytest.mark.parametrize("layout", load_layouts(ROOT / "experiments"), ids=lambda layout: layout.name)
def test_every_table_and_figure_is_filled_by_the_command_it_names(layout):
    """Whatever cell a file of experiments/ shows, the command that it gives must compute."""
    computed = [_fields(config) for config in configs(*layout.command.removeprefix("dcodp run -m ").split())]
    rows = layout.rows if isinstance(layout, TableLayout) else {"model": layout.models, "ratio": layout.ratios}
    shown = [{key: value} for key, values in rows.items() for value in values if value != FOUND]
    for fields in ({}, *shown):
        wanted = {**layout.where, **fields}
        assert any(wanted.items() <= found.items() for found in computed), wanted


def _fields(c: Config) -> dict:
    names = {"model": c.model.name, "dataset": c.dataset.name}
    return {**names, **method_of(to_dict(c)), "ratio": c.ratio, "budget": budget_name(c.target or "", c.ratio)}


@pytest.mark.parametrize("typed", [[], ["ratio=0.5", "model=yolov8n"], ["seed=3,4", "paths.data=x", "ratio=0.1"]])
def test_cells_are_what_hydras_sweeper_makes_of_the_overlay(typed):
    overlay = OmegaConf.load(CONF / "experiment" / "table1_voc2007.yaml")
    params = [f"{key}={values}" for key, values in overlay.hydra.sweeper.params.items()]
    overrides = ["experiment=table1_voc2007", *typed]
    parsed = OverridesParser.create().parse_overrides([*params, *overrides])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    assert [chosen for chosen, _ in asked(*overrides)] == batch


LAUNCH = """
import json, sys
from dcodp.commands import run
from dcodp.identity import run_id
run.attempt = lambda config: print("cell", json.dumps(run_id(config))) or 0
sys.exit(run.launch(sys.argv[1:]))
"""


def test_hydra_launches_the_same_cells(tmp_path):
    """The real launcher on the real entry point, with nothing computed."""
    overrides = ["experiment=table4_ablation", "schedule=smoke", "seed=0", f"paths.results={tmp_path}"]
    command = [sys.executable, "-c", LAUNCH, "-m", *overrides]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    launched = [json.loads(line[5:]) for line in told.stdout.splitlines() if line.startswith("cell ")]
    assert launched == [run_id(config) for config in configs(*overrides)] and len(launched) == 20


def test_a_sweep_needs_the_flag(tmp_path):
    command = [sys.executable, "run.py", "experiment=table1_voc2007", f"paths.results={tmp_path}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2 and told.stderr == "error: 9 cells were asked for; add -m to run a sweep\n"


def test_methods_that_the_report_names_are_those_of_conf():
    for name, parts in declared()["methods"].items():
        ((_, config),) = asked(f"method={name}", "target=flops:0.5")
        assert Method.of(config) == Method(**parts), name
