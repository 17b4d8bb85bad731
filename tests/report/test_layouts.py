"""Declared tables and figures."""

from pathlib import Path

import pytest

from dcodp.errors import InputError
from dcodp.report.claims import check_names
from dcodp.report.labels import known_values, label
from dcodp.report.layouts import FigureLayout, TableLayout, load_layouts

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TABLE = """\
kind: table
where: {dataset: voc2007, importance: dcodp, interlayer: true}
rows: {model: [yolov8n], ratio: [0.5]}
columns: [map50]
"""


def test_every_declared_file_is_usable():
    layouts = {layout.name: layout for layout in load_layouts(EXPERIMENTS)}
    for number in (1, 2, 3, 4):
        assert any(name.startswith(f"table{number}_") for name in layouts)
    for number in (4, 5, 6, 7):
        assert any(name.startswith(f"figure{number}_") for name in layouts)
    for layout in layouts.values():
        check_names(layout.claims, layout.name)
        assert layout.command.startswith("dcodp run -m ")


def test_the_papers_table_1_has_all_classes():
    table = next(layout for layout in load_layouts(EXPERIMENTS) if layout.name == "table1_voc2007")
    assert isinstance(table, TableLayout)
    assert sum(column.value.startswith("per_class/") for column in table.columns) == 20
    assert table.rows["ratio"] == (0.2, 0.5, 0.7) and table.dense
    assert table.where["repair"] == "own" and table.where["target"] == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("kind: table", "kind: pie", "kind"),
        ("kind: table", "kind: table\ncolour: red", "colour is not known"),
        ("[map50]", "[map51]", "column map51"),
        ("importance: dcodp, ", "", "say which importance"),
        ("dataset: voc2007", "planet: mars", "field planet"),
        ("ratio: [0.5]", "ratio: [0.5], stage: [melted]", "stage melted"),
        ("columns: [map50]", "", "columns"),
        ("rows: {", "rows: [", "not readable YAML"),
        ("[map50]", "[{label: x}]", "value"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, old, new, told):
    (tmp_path / "mine.yaml").write_text(TABLE.replace(old, new))
    with pytest.raises(InputError, match=r"mine\.yaml") as caught:
        load_layouts(tmp_path)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_figures_are_declared_alike(tmp_path):
    (tmp_path / "f.yaml").write_text("kind: curve\ntitle: T\nmetrics: [map50]\nwhere: {dataset: voc2007}\n")
    (layout,) = load_layouts(tmp_path)
    assert layout == FigureLayout("f", "T", "curve", ("map50",), {"dataset": "voc2007"})
    (tmp_path / "f.yaml").write_text("kind: curve\nmetrics: [speed]\n")
    with pytest.raises(InputError, match="metric speed"):
        load_layouts(tmp_path)
    (tmp_path / "f.yaml").write_text("kind: pareto\nmetrics: [map50]\nagainst: price\n")
    with pytest.raises(InputError, match="against price is not known; use flops, latency_ms"):
        load_layouts(tmp_path)


def test_unknown_claims_are_named():
    with pytest.raises(InputError, match="claim world_peace is not known"):
        check_names(["world_peace"], "x.yaml")


@pytest.mark.parametrize("group", ["model", "dataset", "importance"])
def test_every_name_of_the_configuration_has_a_label(group):
    names = [path.stem for path in (EXPERIMENTS.parent / "conf" / group).glob("*.yaml")]
    labels = {name: label(group, name) for name in names}
    assert names and set(names) <= set(known_values(group))
    assert len(set(labels.values())) == len(names) and not any("_" in text for text in labels.values())


def test_labels_are_those_of_the_field_and_unknown_names_stay():
    assert [label("dataset", name) for name in ("voc0712", "voc2007", "boats")] == ["VOC07+12", "VOC2007", "boats"]
    assert [label("importance", name) for name in ("random", "chip", "l1", "fpgm", "own")] == [
        *("Random", "CHIP", "L1", "FPGM", "own")
    ]
    assert label("model", "detr") == "detr" and label("ratio", 0.125) == "12.5 %"
