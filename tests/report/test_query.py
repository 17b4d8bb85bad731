"""Records to rows and means."""

import ast
import math
from dataclasses import dataclass, field

import pytest
from made_up import ROOT

from dcodp.errors import InputError
from dcodp.records import Record
from dcodp.report import query
from dcodp.report.methods import DEFAULTS, METHOD, method_name, method_of
from dcodp.report.query import Measurement, Selection, differences, measure, measurements, select, setting_notes
from dcodp.report.tables import default_tables


def test_one_row_per_measured_stage(cell):
    frame = measurements([cell(ratio=0.5), cell(ratio=0.7, aps=(0.4, 0.01, None))])
    assert frame["stage"].tolist() == ["dense", "pruned", "finetuned", "dense", "pruned"]
    pruned = frame.iloc[1]
    assert (pruned["model"], pruned["ratio"], pruned["method"], pruned["budget"]) == ("yolov8n", 0.5, "dcodp", "50 %")
    assert pruned["parameters_removed"] == 0.75 and pruned["flops_removed"] == pytest.approx(0.7)
    assert pruned["channels_removed"] == 0.5 and frame.iloc[0]["channels_removed"] == 0
    assert math.isnan(pruned["ap_large"])  # -1: no such objects
    assert measurements([]).columns.tolist() == frame.columns.tolist()


def test_mean_and_sample_deviation_over_seeds(cell):
    frame = measurements([cell(seed=s, aps=(0.4, 0.0, ap)) for s, ap in enumerate((0.30, 0.32, 0.37))])
    found = measure(select(frame, {"stage": "finetuned"}), "map50_95")
    assert found.mean == pytest.approx(0.33) and found.spread == pytest.approx(0.0360555127546)
    assert found.n == 3


def test_a_dense_net_in_every_ratios_record_counts_once(cell):
    frame = measurements([cell(ratio=r, aps=(0.1 + 0.2, 0.0, 0.3)) for r in (0.2, 0.5, 0.7)])
    assert measure(select(frame, {"stage": "dense"}), "map50_95") == Measurement(0.1 + 0.2, None, 1)


def test_what_has_no_value(cell, evaluation):
    frame = measurements([cell(finetuned=evaluation(0.3, latency_ms=None, ap_small=None))])
    tuned = select(frame, {"stage": "finetuned"})
    assert measure(tuned, "ap_small").state == "none"
    assert measure(tuned, "latency_ms").state == "missing"
    assert measure(tuned, "per_class/dog/map50").state == "none"
    assert measure(tuned, "per_class/cat/map50").mean == pytest.approx(0.48)
    assert measure(tuned.iloc[:0], "map50").state == "missing"


def test_latency_of_different_machines_is_not_averaged(cell, evaluation):
    other = evaluation(0.3, latency={"device": "Other", "threads": 8, "runs": 20})
    frame = measurements([cell(seed=0), cell(seed=1, finetuned=other)])
    tuned = select(frame, {"stage": "finetuned"})
    assert measure(tuned, "latency_ms").state == "mixed"
    assert measure(tuned, "map50").n == 2


def test_settings_differ_by_what_decides_results_only(cell):
    same = cell(seed=1, device="cuda", ratio=0.2, importance="l1", interlayer=False)
    frame = measurements([cell(), same, cell(image_size=320)])
    tuned = frame.loc[frame["stage"] == "finetuned"]
    assert tuned["setting"].tolist()[0] == tuned["setting"].tolist()[1] != tuned["setting"].tolist()[2]
    assert differences(tuned["setting_of"].tolist()) == ["image_size=640", "image_size=640", "image_size=320"]


def test_finetuning_does_not_part_dense_nets(cell):
    longer = cell(seed=1)
    longer.config["finetune"]["epochs"] = 99
    frame = measurements([cell(), longer])
    assert frame.loc[frame["stage"] == "dense", "base"].nunique() == 1
    assert frame.loc[frame["stage"] == "finetuned", "setting"].nunique() == 2


def test_weights_count_by_name_and_fingerprint_not_by_folder(cell):
    records = [cell(seed=s) for s in range(3)]
    for record, folder in zip(records, ("/here", "/there", "/there"), strict=True):
        record.config["model"]["weights"] = f"{folder}/best.pt"
    assert measurements(records)["base"].nunique() == 1
    records[2].provenance["weights"] = {"weights": "feed"}
    assert measurements(records)["base"].nunique() == 2


def test_a_target_is_not_a_ratio(cell):
    frame = measurements([cell(target="flops:0.5"), cell(target="parameters:0.25")])
    budgets = frame.loc[frame["stage"] == "pruned", "budget"].tolist()
    assert budgets == ["FLOPs to 50 %", "parameters to 25 %"]
    assert select(frame, {"ratio": 0.5}).empty


def test_how_layers_are_joined_is_part_of_the_method(cell):
    ways = [cell(run_id=way) for way in ("sum", "max", "consumer")]
    for record in ways:
        record.config["importance"]["aggregate"] = record.run_id
    tuned = select(measurements(ways), {"stage": "finetuned"})
    assert tuned["method"].tolist() == ["dcodp", "dcodp, max over layers", "dcodp, by consumers"]
    assert tuned["setting"].nunique() == 1 and tuned["aggregate"].tolist() == ["sum", "max", "consumer"]
    assert measurements(ways).query("stage == 'dense'")["method"].unique().tolist() == [""]


def test_select(cell):
    frame = measurements([cell(ratio=r, seed=s) for r in (0.2, 0.5) for s in (0, 1)])
    assert set(select(frame, {"ratio": [0.2, 0.3], "seed": 1})["run_id"]) == {"yolov8n-voc2007-dcodp-0.2-1"}
    with pytest.raises(InputError, match="no field colour"):
        select(frame, {"colour": "red"})


def test_a_selection_finds_what_select_finds_and_looks_the_rows_through_once(cell, monkeypatch):
    by_target = {"target": "flops:0.5", "ratio": 0.0, "run_id": "target"}  # its ratio is not a number in the rows
    frame = measurements(
        [*(cell(ratio=ratio, seed=seed) for ratio in (0.2, 0.5) for seed in (0, 1)), cell(**by_target)]
    )
    looked, real = [], query._places
    monkeypatch.setattr(query, "_places", lambda *given: looked.append(given[1]) or real(*given))
    chosen = Selection(frame)
    asked = [{}, {"ratio": 0.9, "seed": 0}]
    asked += [{key: row[key] for key in ("ratio", "target", "stage", "interlayer")} for row in frame.to_dict("records")]
    assert any(math.isnan(one.get("ratio", 0)) for one in asked) and len(asked) > 8
    for one in asked:
        assert chosen.where(one).index.tolist() == select(frame, one).index.tolist(), one
    assert len(looked) == 3
    with pytest.raises(InputError, match="records have no field nonsense"):
        chosen.where({"nonsense": 1})


def test_rows_of_one_setting_share_its_explanation(cell):
    frame = measurements([cell(ratio=ratio, seed=seed) for ratio in (0.2, 0.5) for seed in range(3)])
    assert len({id(tree) for key in ("setting_of", "base_of") for tree in frame[key]}) == 2
    assert all(row["setting_of"] is row["base_of"] for row in frame.to_dict("records") if row["stage"] == "dense")


def test_records_without_configuration_are_passed_over(cell):
    broken = cell()
    broken.config = {}
    assert measurements([broken]).empty
    broken.config = {"model": "yolov8n", "ratio": 0.5}  # not our schema: unknown, yet no crash
    assert measurements([broken])["model"].tolist() == ["?"] * 3


def test_a_dense_net_that_was_not_trained_as_asked_makes_another_method_and_says_so(cell):
    given, untrained = (cell(importance="slimming", run_id=f"run-{k}") for k in range(2))
    untrained.config["train"]["epochs"] = 0
    frame = measurements([given, untrained])
    pruned = frame.loc[frame["stage"] == "pruned"]
    assert list(pruned["importance"]) == ["slimming", "slimming (sparsity 0)"]
    dense = frame.loc[frame["stage"] == "dense"]
    assert dense["base_of"].iloc[0]["train.sparsity"] == 1e-4 and dense["base_of"].iloc[1]["train.sparsity"] == 0


def test_how_the_dense_net_was_trained_for_a_method_is_no_other_setting_but_another_dense_net(cell):
    given, switched_off = (cell(importance="slimming", run_id=f"run-{k}") for k in range(2))
    switched_off.config["train"]["sparsity"] = 0.0
    frame = measurements([given, switched_off, cell()])
    assert frame.loc[frame["stage"] == "pruned", "setting"].nunique() == 1
    dense = frame.loc[frame["stage"] == "dense", "base"].tolist()
    assert dense[0] != dense[1] == dense[2]
    rows = frame.loc[frame["stage"] == "pruned"].to_dict("records")
    assert setting_notes(rows) == [" [train.sparsity=0.0001]", " [train.sparsity=0.0]", ""]


@dataclass
class Listed(Record):
    """A record whose stages are a list."""

    stages: list = field(default_factory=list)


def test_stages_are_those_that_the_record_lists_in_its_order(cell, evaluation):
    record = cell()
    names = ("dense", "pruned", "repaired", "pruned", "melted")
    stages = [{"name": name, **evaluation(0.1 * i, name)} for i, name in enumerate(names)]
    listed = Listed(record.run_id, "done", record.config, provenance=record.provenance, stages=stages)
    frame = measurements([listed])
    assert frame["stage"].tolist() == ["dense", "pruned", "repaired", "melted"]
    assert frame["map50_95"].tolist() == pytest.approx([0, 0.3, 0.2, 0.4])  # of several steps the last
    (table,) = default_tables(frame)
    stages = ["pruned", "repaired", "melted", "fine-tuned"]
    assert [row.labels for row in table.rows[1:]] == [("dcodp", "50 %", stage) for stage in stages]
    assert table.missing == ("dcodp, 50 %, fine-tuned",)  # asked for, and still to come


def test_a_method_is_read_in_one_place_and_needs_no_entry_anywhere(cell):
    record = cell(importance="spread", allocation={"name": "by_flops"}, interlayer=False)
    method = method_of(record.config)
    assert tuple(method) == tuple(METHOD) and method["importance"] == "spread" and method["allocation"] == "by_flops"
    assert method_name(method) == "spread, uncoupled, allocation=by_flops"
    assert method_of({}) == {**DEFAULTS}
    strong = {"importance": "second_order", "allocation": "cost", "repair": "least_squares_batchnorm"}
    strong |= {"recovery": "labels + distillation"}
    assert method_name(DEFAULTS | strong | {"steps": 2}) == "strong, steps=2"
    assert method_name(DEFAULTS | strong | {"interlayer": False}).startswith("second_order, uncoupled, cost-aware")
    assert math.isnan(method_of({"target": "flops:0.5", "ratio": 0.5})["ratio"])


def test_no_code_of_the_report_names_a_criterion():
    names = {path.stem for path in (ROOT / "conf" / "importance").glob("*.yaml")}
    assert "dcodp" in names
    for path in (ROOT / "src" / "dcodp" / "report").glob("*.py"):
        constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not names & {value for value in constants if isinstance(value, str)}, path
