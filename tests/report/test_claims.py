"""Verdicts on made-up records."""

import pytest

from dcodp.report.claims import FAILS, HOLDS, NOT_MEASURED, all_claims, judge, judge_one
from dcodp.report.query import measurements

BASELINES = ("slimming", "thinet", "hrank")


def verdict(name, records, dataset="voc2007"):
    frame = measurements(records)
    return judge_one(all_claims()[name], frame.loc[frame["dataset"] == dataset], dataset)


def test_nothing_measured_nothing_claimed():
    verdicts = judge(measurements([]))
    assert len(verdicts) == 3 * len(all_claims())
    assert {v.verdict for v in verdicts} == {NOT_MEASURED}


@pytest.mark.parametrize(
    ("aps", "expected"),
    [
        ({0.2: 0.395, 0.5: 0.39}, HOLDS),
        ({0.2: 0.4, 0.5: 0.389}, FAILS),
        ({0.2: 0.4}, NOT_MEASURED),
        ({0.5: 0.2}, FAILS),
    ],
)
def test_minimal_loss(cell, aps, expected):
    found = verdict("minimal_loss", [cell(ratio=r, aps=(0.4, 0.0, ap)) for r, ap in aps.items()])
    assert found.verdict == expected
    assert found.lacking == tuple(r for r in (0.2, 0.5) if r not in aps)
    assert found.run_ids == tuple(f"yolov8n-voc2007-dcodp-{r}-0" for r in aps)


def test_loss_is_paired_with_the_runs_own_dense_net(cell):
    records = [cell(seed=0, ratio=0.7, aps=(0.40, 0, 0.36)), cell(seed=1, ratio=0.2, aps=(0.60, 0, 0.6))]
    (evidence,) = verdict("acceptable_at_70", records).evidence
    assert evidence.text == "YOLOv8n, 70 %: 4.0 points lost" and evidence.supports


def test_other_methods_do_not_count(cell):
    records = [
        cell(ratio=0.7, importance="l1"),
        cell(ratio=0.7, interlayer=False),
        cell(ratio=0.7, repair={"name": "rescale"}),
    ]
    assert verdict("acceptable_at_70", records).verdict == NOT_MEASURED


def test_kept_to_half_needs_both_ends(cell):
    kept = [cell(ratio=r, aps=(0.4, 0, 0.41)) for r in (0.1, 0.3, 0.5)]
    assert verdict("kept_to_half", kept).verdict == HOLDS
    assert verdict("kept_to_half", kept[:2]).verdict == NOT_MEASURED
    assert verdict("kept_to_half", [*kept, cell(ratio=0.4, aps=(0.4, 0, 0.39))]).verdict == FAILS


def test_yolov7_against_the_others(cell):
    def three(yolov8):
        families = {"yolov7": "yolov7", "yolov8n": "yolov8", "faster_rcnn": "faster_rcnn"}
        records = [cell(model=name, aps=(0.4, 0, {"yolov8n": yolov8}.get(name, 0.35))) for name in families]
        for record in records:
            record.config["model"]["family"] = families[record.config["model"]["name"]]
        return records

    assert verdict("yolov7_least_sensitive", three(0.3)).verdict == HOLDS
    assert verdict("yolov7_least_sensitive", three(0.39)).verdict == FAILS
    assert verdict("yolov7_least_sensitive", three(0.3)[:2]).verdict == NOT_MEASURED


def test_rare_classes(cell):
    assert verdict("rare_classes_lose_most", [cell()]).verdict == FAILS  # cat loses more than bird
    record = cell()
    record.finetuned["per_class"]["bird"]["map50"] = 0.1
    record.dense["per_class"]["aeroplane"] = {"map50": None, "map50_95": None}
    found = verdict("rare_classes_lose_most", [record])
    assert found.verdict == HOLDS and "over 1 such classes 46.0 points lost" in found.evidence[0].text


def test_sizes_and_thresholds(cell, evaluation):
    dense = evaluation(0.4, ap_large=0.6)
    gains = evaluation(0.4, ap_large=0.62, ap_small=0.18, ap75=0.45)
    assert verdict("larger_and_stricter_gain_more", [cell(dense=dense, finetuned=gains)]).verdict == HOLDS
    gains = evaluation(0.4, ap_large=0.5, ap_small=0.2)
    assert verdict("larger_and_stricter_gain_more", [cell(dense=dense, finetuned=gains)]).verdict == FAILS
    lacking = verdict("larger_and_stricter_gain_more", [cell()])  # no large objects
    assert "ap_large" in lacking.lacking


def test_baselines_at_equal_budget_only(cell, evaluation):
    ours = cell(aps=(0.4, 0, 0.38))
    others = [cell(importance=name, aps=(0.4, 0, 0.35)) for name in ("slimming", "thinet", "hrank")]
    assert verdict("beats_baselines", [ours, *others]).verdict == HOLDS
    assert verdict("beats_baselines", [ours, *others[:2]]).lacking == ("hrank",)
    better = cell(importance="hrank", interlayer=False, finetuned=evaluation(0.39, "pruned"))
    assert verdict("beats_baselines", [ours, *others, better]).verdict == FAILS
    larger = cell(importance="hrank", interlayer=False, finetuned=evaluation(0.39, "pruned", flops=5_000_000_000))
    assert verdict("beats_baselines", [ours, *others, larger]).verdict == HOLDS


def test_baselines_at_matched_flops_count_and_are_called_that(cell, evaluation):
    ours = cell(target="flops:0.3", aps=(0.4, 0, 0.38), run_id="ours")
    others = [cell(importance=name, target="flops:0.3", aps=(0.4, 0, 0.35), run_id=name) for name in BASELINES]
    found = verdict("beats_baselines", [ours, *others])
    assert found.verdict == HOLDS and found.lacking == ()
    for name, item in zip(BASELINES, found.evidence, strict=True):
        assert item.text.startswith(f"YOLOv8n, FLOPs to 30 %, at matched FLOPs: 38.0 against 35.0 of {name}")
        assert item.text.endswith(" at FLOPs to 30 %")
    better = cell(importance="hrank", interlayer=False, target="flops:0.3", aps=(0.4, 0, 0.39), run_id="better")
    assert verdict("beats_baselines", [ours, *others, better]).verdict == FAILS


def test_both_ways_of_comparing_stand_side_by_side_and_are_not_mixed(cell):
    names = ("dcodp", "hrank")
    records = [cell(importance=name) for name in names]
    records += [cell(importance=name, target="flops:0.3", run_id=f"{name}-flops") for name in names]
    texts = [item.text for item in verdict("beats_baselines", records).evidence]
    assert [text.partition(":")[0] for text in texts] == [
        "YOLOv8n, 50 %, at equal ratio",
        "YOLOv8n, FLOPs to 30 %, at matched FLOPs",
    ]
    other = [records[0], cell(importance="hrank", ratio=0.6, interlayer=False)]  # as many FLOPs by another ratio
    (evidence,) = verdict("beats_baselines", other).evidence
    assert evidence.text.startswith("YOLOv8n, 50 %, at matched FLOPs: 38.0 against 38.0 of hrank, uncoupled at 60 %")


def test_a_target_is_no_ratio_for_the_other_claims(cell):
    lost = cell(target="flops:0.3", aps=(0.4, 0, 0.1))
    assert all(v.verdict == NOT_MEASURED for v in judge(measurements([lost])))


def test_the_sparsity_that_slimming_trains_with_does_not_keep_it_from_being_compared(cell):
    slimming = cell(importance="slimming", aps=(0.39, 0, 0.35))
    slimming.config["train"]["sparsity"] = 1e-4
    (evidence,) = verdict("beats_baselines", [cell(), slimming]).evidence
    assert (
        evidence.supports and "of slimming (its dense net trained with train.sparsity=0.0001) at 50 %" in evidence.text
    )
    slimming.config["train"]["epochs"] += 1
    assert not verdict("beats_baselines", [cell(), slimming]).evidence


def test_a_gap_within_the_spread_is_said(cell):
    ours = [cell(seed=s, aps=(0.4, 0, ap)) for s, ap in enumerate((0.36, 0.40))]
    found = verdict("beats_baselines", [*ours, cell(importance="hrank", aps=(0.4, 0, 0.379))])
    assert "38.0 against 37.9 of hrank at 50 % (within the spread of the seeds)" in found.evidence[0].text


def test_coupling(cell):
    def pairs(coupled):
        names = ("slimming", "thinet", "hrank")
        with_it = [cell(importance=name, aps=(0.4, 0, coupled)) for name in names]
        return with_it + [cell(importance=name, interlayer=False, aps=(0.4, 0, 0.36)) for name in names]

    assert verdict("coupling_helps", pairs(0.37)).verdict == HOLDS
    assert verdict("coupling_helps", pairs(0.36)).verdict == FAILS
    assert verdict("coupling_helps", pairs(0.37)[:4]).lacking == ("thinet", "hrank")
