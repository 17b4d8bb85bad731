"""What README.md shows is what the records and benchmarks under results/ say."""

import json
import re
from pathlib import Path

import pytest

from dcodp.records import load_records
from dcodp.report.formats import markdown
from dcodp.report.layouts import load_layouts
from dcodp.report.query import measurements
from dcodp.report.tables import build_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def table(mark: str) -> list[list[str]]:
    """The rows of the table between <!-- mark --> and <!-- end -->, without its two head lines."""
    text = README.partition(f"<!-- {mark} -->")[2].partition("<!-- end -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_architectures_are_those_of_the_benchmark():
    measured = json.loads((ROOT / "results" / "architectures.json").read_text())["architectures"]
    expected = []
    for name, row in measured.items():
        ours, peer = row["ours"], row["peer"]
        assert ours["failure"] is None
        removed, error = ours["ratios"]["0.5"]["parameters_removed"], max(r["error"] for r in ours["ratios"].values())
        told = peer["problem"] or f"{100 * peer['removed']:.1f} % removed"
        expected.append([name, f"{ours['parameters'] / 1e6:.1f}", f"{100 * removed:.1f} %", f"{error:.0e}", told])
    assert table("architectures") == expected
    good = sum(row["peer"]["problem"] is None for row in measured.values())
    assert f"{len(measured)} architectures, no failure" in README and f"prunes {good} of them" in README


def test_the_demonstration_is_that_of_the_records():
    records = [json.loads(p.read_text()) for p in (ROOT / "results" / "demo").rglob("record.json")]
    assert {r["config"]["ratio"] for r in records} == {0.2, 0.5, 0.7}
    rows = {(row[1], row[2]): row for row in table("demo table")}
    for record in records:
        dense, ratio = record["dense"], f"{100 * record['config']['ratio']:.0f} %"
        assert rows["", ""][3:5] == [f"{100 * dense[k]:.1f}" for k in ("map50", "map50_95")]
        for stage, name in (("pruned", "pruned"), ("finetuned", "fine-tuned")):
            row, block = rows[ratio, name], record[stage]
            assert row[3:5] == [f"{100 * block[k]:.1f}" for k in ("map50", "map50_95")]
            assert row[7] == f"{block['parameters'] / 1e6:.3f}"
            assert row[8] == f"{100 * (1 - block['parameters'] / dense['parameters']):.1f}"


def test_the_coco_figures_are_those_of_the_records():
    records = [json.loads(p.read_text()) for p in (ROOT / "results" / "coco").rglob("record.json")]
    names = {"yolov8n": "YOLOv8n", "yolov7": "YOLOv7"}
    rows = {(row[0], row[1]): row for row in table("coco table")}
    assert len(rows) == len(records) + len(names)
    for record in records:
        name = names[record["config"]["model"]["name"]]
        for ratio, block in (
            ("dense", record["dense"]),
            (f"{100 * record['config']['ratio']:.0f} %", record["pruned"]),
        ):
            sizes = " / ".join(f"{100 * block[k]:.1f}" for k in ("ap_small", "ap_medium", "ap_large"))
            expected = [f"{100 * block[k]:.1f}" for k in ("map50_95", "map50", "ap75")]
            cost = [f"{block['parameters'] / 1e6:.3f}", f"{block['flops'] / 1e9:.2f}"]
            assert rows[name, ratio][2:] == [*expected, sizes, *cost]
        assert record["dense"]["images"] == 500 and record["dense"]["subset"]


def test_the_three_detectors_are_those_of_the_records():
    records = [json.loads(p.read_text()) for p in (ROOT / "results" / "shapes").rglob("record.json")]
    rows = {row[5]: row for row in table("shapes table")}  # by their number of parameters
    assert len(rows) == 2 * len(records) == 6
    for record in records:
        dense, pruned, tuned = record["dense"], record["pruned"], record["finetuned"]
        assert dense["map50"] >= 0.6
        row = rows[f"{dense['parameters'] / 1e6:.3f}"]
        assert row[3:5] == [f"{100 * dense[k]:.1f}" for k in ("map50", "map50_95")]
        row = rows[f"{tuned['parameters'] / 1e6:.3f}"]
        assert row[2:5] == [f"{100 * v:.1f}" for v in (pruned["map50"], tuned["map50"], tuned["map50_95"])]


def test_the_cost_of_scores_is_that_of_the_benchmark():
    measured = json.loads((ROOT / "results" / "importance_cost.json").read_text())
    assert set(measured) == {"yolov8n", "yolov7", "faster_rcnn"}
    models = [measured[name] for name in ("yolov8n", "yolov7", "faster_rcnn")]
    expected = [
        [name, *(f"{m['criteria'][name]['seconds'] / m['forward']['seconds']:.1f}" for m in models)]
        for name in models[0]["criteria"]
    ]
    assert table("cost") == expected
    first = models[0]
    assert first["criteria"]["dcodp"]["seconds"] <= 5 * first["forward"]["seconds"]
    ours = (first["criteria"]["dcodp"]["seconds"] - first["forward"]["seconds"]) / first["images"]
    ratio = first["published"]["decompositions"] / ours
    assert ratio >= 200 and f"{ratio:.0f} times" in README
    again = (ROOT / "results" / "importance_cost_again.md").read_text()
    for start in (
        "scoring alone; published: its decompositions",
        "the same, with one forward",
        "all that its code does",
    ):
        found = [row.strip("| ").split()[-1] for row in again.splitlines() if row.startswith(f"| {start}")]
        assert re.search(rf"{found[0]} and\s{found[1]} in place of", README)


def test_the_calibration_table_is_that_of_the_benchmark():
    lines = (ROOT / "results" / "calibration.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert table("calibration") == rows[2:]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ablation_shapes", "ablation_shapes"),
        ("aggregation_shapes", "ablation_shapes"),
        ("ablation_coco", "ablation_coco"),
    ],
)
def test_the_comparisons_of_criteria_are_those_of_the_records(name, folder):
    (layout,) = [layout for layout in load_layouts(ROOT / "experiments") if layout.name == name]
    shown = build_table(layout, measurements(load_records(ROOT / "results" / folder)))
    rendered = [line for line in markdown([shown]).splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in rendered]
    assert shown.missing == () and table(name) == rows[2:]
