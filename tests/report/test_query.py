"""Records to rows and means."""

import math

import pytest

from dcodp.errors import InputError
from dcodp.report.query import Measurement, differences, measure, measurements, select


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


def test_records_without_configuration_are_passed_over(cell):
    broken = cell()
    broken.config = {}
    assert measurements([broken]).empty
    broken.config = {"model": "yolov8n", "ratio": 0.5}  # not our schema: unknown, yet no crash
    assert measurements([broken])["model"].tolist() == ["?"] * 3


def test_slimming_without_its_sparsity_is_another_method_and_says_so(cell):
    given, switched_off, untrained = (cell(importance="slimming", run_id=f"run-{k}") for k in range(3))
    switched_off.config["train"]["sparsity"] = 0.0
    untrained.config["train"]["epochs"] = 0
    frame = measurements([given, switched_off, untrained])
    pruned = frame.loc[frame["stage"] == "pruned"]
    assert list(pruned["importance"]) == ["slimming", "slimming (sparsity 0)", "slimming (sparsity 0)"]
    assert pruned["setting"].iloc[0] == pruned["setting"].iloc[1]
    dense = frame.loc[frame["stage"] == "dense"]
    assert dense["base"].iloc[0] != dense["base"].iloc[1] == measurements([cell()])["base"].iloc[0]
