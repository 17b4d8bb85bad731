"""What README.md and docs/ show is what the records and benchmarks under results/ say."""

import json
import runpy
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from dcodp.errors import InputError
from dcodp.records import Record, load_records

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
TEXT = "\n".join(PAGES.values())
MADE_FROM_CODE = {"coupling graph", "commands", "configuration keys", "configuration groups"}


def table(mark: str) -> list[list[str]]:
    """The rows of the table between <!-- mark --> and <!-- end -->, without its two head lines."""
    text = TEXT.partition(f"<!-- {mark} -->")[2].partition("<!-- end -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def figures(record: Record, stage: str) -> dict[str, Any]:
    block = record.block(stage)
    assert block is not None
    return block


def test_the_architectures_are_those_of_the_benchmark():
    measured = json.loads((RESULTS / "architectures.json").read_text())["architectures"]
    expected = []
    for name, row in measured.items():
        ours, peer = row["ours"], row["peer"]
        assert ours["failure"] is None
        removed, error = ours["ratios"]["0.5"]["parameters_removed"], max(r["error"] for r in ours["ratios"].values())
        told = peer["problem"] or f"{100 * peer['removed']:.1f} % removed"
        expected.append([name, f"{ours['parameters'] / 1e6:.1f}", f"{100 * removed:.1f} %", f"{error:.0e}", told])
    assert table("architectures") == expected
    good = sum(row["peer"]["problem"] is None for row in measured.values())
    assert f"- {len(measured)} architectures; ours: 0 failures; torch-pruning: {good} pruned and running of" in TEXT


def test_the_demonstration_is_that_of_the_records():
    records = load_records(RESULTS / "demo")
    asked = {(record.config["method"], record.config["ratio"]) for record in records}
    assert asked == {(method, ratio) for method in ("paper", "strong") for ratio in (0.2, 0.5, 0.7)}
    rows = {(row[0].partition(",")[0], row[1], row[2]): row for row in table("demo table")}
    for record in records:
        dense, ratio = figures(record, "dense"), f"{100 * record.config['ratio']:.0f} %"
        assert rows["dense", "", ""][3:5] == [f"{100 * dense[k]:.1f}" for k in ("map50", "map50_95")]
        for stage, name in (("pruned", "pruned"), ("finetuned", "fine-tuned")):
            method = {"paper": "dcodp"}.get(record.config["method"], record.config["method"])
            row, block = rows[method, ratio, name], figures(record, stage)
            assert row[3:5] == [f"{100 * block[k]:.1f}" for k in ("map50", "map50_95")]
            assert row[7] == f"{block['parameters'] / 1e6:.3f}"
            assert row[8] == f"{100 * (1 - block['parameters'] / dense['parameters']):.1f}"


def test_the_coco_figures_are_those_of_the_records():
    records = load_records(RESULTS / "coco")
    names = {"yolov8n": "YOLOv8n", "yolov7": "YOLOv7"}
    rows = {(row[0], row[1]): row for row in table("coco table")}
    assert len(rows) == len(records) + len(names)
    for record in records:
        name, dense = names[record.config["model"]["name"]], figures(record, "dense")
        ratio = f"{100 * record.config['ratio']:.0f} %"
        for budget, block in (("dense", dense), (ratio, figures(record, "pruned"))):
            keys = ("map50_95", "map50", "ap75", "ap_small", "ap_medium", "ap_large")
            expected = [f"{100 * block[k]:.1f}" for k in keys]
            cost = [f"{block['parameters'] / 1e6:.3f}", f"{block['flops'] / 1e9:.2f}"]
            assert rows[name, budget][2:] == [*expected, *cost]
        assert dense["images"] == 500 and dense["subset"]


def test_what_is_left_after_fine_tuning_is_that_of_the_records():
    records = load_records(RESULTS / "bccd")
    shown = PAGES[ROOT / "README.md"].partition("<!-- bccd fine-tuned -->")[2].partition("<!-- end -->")[0]
    head = [cell.strip() for cell in shown.splitlines()[1].strip("|").split("|")]
    rows = {row[0]: row for row in table("bccd fine-tuned")}
    assert len(records) >= 6
    for record in records:
        method, target = record.config["method"], record.config["target"]
        same = [r for r in records if (r.config["method"], r.config["target"]) == (method, target)]
        column = head.index(f"FLOPs: {100 * float(target.partition(':')[2]):g} %")
        tuned = [figures(r, "finetuned") for r in same]
        cell = rows[method][column]
        assert cell.startswith(f"{100 * fmean(block['map50_95'] for block in tuned):.1f}")
        assert cell.endswith(f"{fmean(block['parameters'] for block in tuned) / 1e6:.2f} M")
        if len(records) == len({(r.config["method"], r.config["target"]) for r in records}):  # one seed
            share = tuned[0]["map50_95"] / figures(record, "dense")["map50_95"]
            assert f"({100 * share:.1f} %)" in cell
    assert {record.config["method"] for record in records} | {"dense, 100 %"} == set(rows)
    assert "**one seed**" in shown or "seeds" in shown


def test_a_changed_record_makes_the_page_stale(rendering):
    fine = runpy.run_path(str(ROOT / "docs/made/finetuned.py"))["finetuned"]
    records = load_records(RESULTS / "bccd")
    before = fine(records)
    records[0].stages[-1]["map50_95"] += 0.01
    after = fine(records)
    assert before in PAGES[ROOT / "README.md"] and after not in PAGES[ROOT / "README.md"]


def test_the_three_detectors_are_those_of_the_records():
    records = load_records(RESULTS / "shapes")
    rows = {row[5]: row for row in table("shapes table")}  # by their number of parameters
    assert len(rows) == 2 * len(records) == 6
    for record in records:
        dense, pruned, tuned = (figures(record, stage) for stage in ("dense", "pruned", "finetuned"))
        assert dense["map50"] >= 0.6
        row = rows[f"{dense['parameters'] / 1e6:.3f}"]
        assert row[3:5] == [f"{100 * dense[k]:.1f}" for k in ("map50", "map50_95")]
        row = rows[f"{tuned['parameters'] / 1e6:.3f}"]
        assert row[2:5] == [f"{100 * v:.1f}" for v in (pruned["map50"], tuned["map50"], tuned["map50_95"])]


def test_the_cost_of_scores_is_that_of_the_benchmark():
    measured = json.loads((RESULTS / "importance_cost.json").read_text())
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
    (compared,) = [line for line in TEXT.splitlines() if line.startswith("| its decompositions alone")]
    assert ratio >= 200 and compared.split("|")[2].strip() == f"{ratio:.0f}"
    again = (RESULTS / "importance_cost_again.md").read_text()
    for start, told in (
        ("scoring alone; published: its decompositions", "its decompositions alone"),
        ("the same, with one forward", "the same, one forward"),
        ("all that its code does", "all that each does"),
    ):
        later = [row.strip("| ").split()[-1] for row in again.splitlines() if row.startswith(f"| {start}")]
        (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {told}")]
        assert row.strip("| ").split(" | ")[2:] == later


# --- what `make results` makes ---


@pytest.fixture(scope="module")
def rendering():
    return runpy.run_path(str(RESULTS / "render.py"))


def test_nothing_that_is_rendered_is_stale(rendering):
    stale = [str(path.relative_to(ROOT)) for path in rendering["stale"]()]
    assert stale == [], "run: make results"


def test_every_study_and_every_place_for_a_table_is_rendered(rendering):
    assert {path.parent.name for path in RESULTS.glob("*/records.json")} == set(rendering["STUDIES"])
    measured = {
        *rendering["TABLES"],
        "bccd fine-tuned",
        "bccd recovery",
        "bccd allocation",
        "shapes recovery",
        "bccd teacher",
        "voc teacher",
        "voc recovery",
        "voc fine-tuned",
        "prune card",
        "architectures",
        "architectures summary",
        "cost",
        "calibration",
        "studies",
    }
    found = [mark for path in rendering["pages"]() for mark in rendering["marks"](path.read_text())]
    assert sorted(found) == sorted({*measured, *MADE_FROM_CODE})
    kept = {path for path in RESULTS.glob("*/tables/*") if path.is_file()}
    assert kept == {path for path in rendering["documents"]() if path.parent.name == "tables"}


def test_every_measurement_of_a_benchmark_is_rendered(rendering):
    assert {path.stem for path in rendering["benchmark_documents"]()} == {path.stem for path in RESULTS.glob("*.json")}


def test_each_block_has_one_place_on_one_page(rendering):
    texts = {Path("a"): "<!-- one -->\n<!-- end -->\n", Path("b"): "<!-- two -->\nold\n<!-- end -->\n"}
    placed = rendering["placed"](texts, {"one": "1", "two": "2"})
    assert placed == {Path("a"): "<!-- one -->\n1\n<!-- end -->\n", Path("b"): "<!-- two -->\n2\n<!-- end -->\n"}
    with pytest.raises(InputError, match=r"three \(0 times\)"):
        rendering["placed"](texts, {"one": "1", "two": "2", "three": "3"})
    with pytest.raises(InputError, match=r"two \(1 times, unknown\)"):
        rendering["placed"](texts, {"one": "1"})
    with pytest.raises(InputError, match=r"one \(2 times\)"):
        rendering["placed"]({**texts, Path("c"): texts[Path("a")]}, {"one": "1", "two": "2"})


@pytest.mark.parametrize("study", ["ablation_shapes", "ablation_coco"])
def test_no_cell_of_the_comparisons_of_criteria_is_missing(rendering, study):
    tables = [table for tables in rendering["study_tables"](study).values() for table in tables]
    assert tables and all(table.missing == () for table in tables)


def test_a_table_without_a_place_is_one_line(rendering):
    text = "a\n<!-- one -->\nold\n<!-- end -->\nb\n"
    assert rendering["filled"](text, {"one": "new"}) == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n"
    with pytest.raises(InputError, match="no place for the table two"):
        rendering["filled"](text, {"two": "new"})
