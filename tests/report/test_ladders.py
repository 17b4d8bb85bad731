"""What is left after each stage, whatever the stages are called."""

import pytest

from dcodp.report.formats import texts
from dcodp.report.ladders import ladders, merged, numbered


def shown(table) -> list[list[str]]:
    return [[*table.headers, *(column.label for column in table.columns)], *texts(table)]


def test_a_ladder_has_a_row_for_each_method_and_the_mean_over_seeds(cell, evaluation):
    aps = {0: (0.4, 0.1, 0.36), 1: (0.4, 0.1, 0.38)}
    repaired = [cell(seed=s, repair={"name": "rescale"}, run_id=f"r{s}", aps=aps[s]) for s in aps]
    for record in repaired:
        record.stages.insert(2, {"name": "repaired", **evaluation(0.3, "repaired")})
    (table,) = ladders([cell(aps=(0.4, 0.01, 0.35)), *repaired])
    assert table.title == "YOLOv8n on VOC2007: mAP50-95 after each stage"
    assert shown(table) == [
        ["Method", "Ratio", "dense", "pruned", "repaired", "fine-tuned", "FLOPs removed (%)"],
        ["dcodp", "50 %", "40.0 ± 0.0", "1.0", "—", "35.0", "70.0"],
        ["dcodp, rescaled", "50 %", "40.0 ± 0.0", "10.0 ± 0.0", "30.0 ± 0.0", "37.0 ± 1.4", "70.0"],
    ]
    assert table.rows[1].run_ids == ("r0", "r1") and "Mean ± sample standard deviation" in " ".join(table.footnotes)


def test_a_stage_that_is_still_to_come_is_missing_and_one_that_was_not_asked_for_is_not(cell):
    stopped = cell(ratio=0.2, aps=(0.4, 0.3, None), status="interrupted")
    untrained = cell(ratio=0.7, aps=(0.4, 0.1, None), run_id="untrained")
    untrained.config["finetune"]["epochs"] = 0
    tables = ladders([stopped, cell(), untrained])
    cells = {row[1]: row[2:6] for table in tables for row in texts(table)}
    assert cells["20 %"][:3] == ["40.0", "30.0", "missing"] and cells["50 %"][:3] == ["40.0", "1.0", "38.0"]
    assert cells["70 %"][:2] == ["40.0", "10.0"] and "missing" not in cells["70 %"]


def test_steps_and_stages_of_any_name_stand_in_the_order_of_the_records(cell, evaluation):
    record = cell(steps=2)
    names = ("dense", "pruned", "melted", "finetuned", "pruned", "melted", "finetuned")
    record.stages = [{"name": name, **evaluation(0.1 * (9 - i), name)} for i, name in enumerate(names)]
    (table,) = ladders([record])
    heads, row = shown(table)
    twice = ["pruned", "melted", "fine-tuned"]
    assert heads[2:-1] == ["dense", *twice, *(f"{name}, step 2" for name in twice)]
    assert row[2:-1] == ["90.0", "80.0", "70.0", "60.0", "50.0", "40.0", "30.0"]


def test_a_dense_net_of_its_own_is_the_first_rung_of_its_own_methods(cell):
    records = [cell(importance="slimming", aps=(0.36, 0, 0.3)), cell()]
    (table,) = ladders(records)
    assert [[row[0], row[2]] for row in texts(table)] == [["dcodp", "40.0"], ["slimming", "36.0"]]


def test_settings_have_ladders_of_their_own_and_dense_nets_alone_have_none(cell):
    tables = ladders([cell(), cell(image_size=320, run_id="small")])
    assert len({table.title for table in tables}) == len({table.name for table in tables}) == 2
    assert ladders([cell(aps=(0.4, None, None))]) == [] == ladders([])


@pytest.mark.parametrize("turn", [1, -1])
def test_orders_are_merged_whichever_comes_first(turn):
    assert merged([["a", "b", "d"], ["a", "b", "c", "d"]][::turn]) == ["a", "b", "c", "d"]
    assert numbered(["a", "b", "a", "a"]) == ["a", "b", "a, step 2", "a, step 3"]
