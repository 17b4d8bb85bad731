"""Exact text of tables from made-up records."""

import csv
import io

import pytest

from dcodp.report.formats import csv_text, latex, markdown
from dcodp.report.layouts import COLUMNS, Column, TableLayout
from dcodp.report.query import measurements
from dcodp.report.tables import build_table, default_tables

WHERE = {
    "dataset": "voc2007",
    "importance": "dcodp",
    "interlayer": True,
    "allocation": "uniform",
    "repair": "own",
    "recovery": "labels",
    "steps": 1,
    "target": "",
}
LAYOUT = TableLayout(
    "small",
    "VOC_2007 & more",
    rows={"model": ("yolov7", "yolov8n"), "ratio": (0.5, 0.7)},
    columns=(COLUMNS["map50_95"], COLUMNS["ap_large"], COLUMNS["parameters"], COLUMNS["latency_ms"]),
    where=WHERE,
)

MARKDOWN = """\
### VOC_2007 & more

| Detector | Ratio | mAP50-95 | APL | Parameters (M) | Latency (ms) |
| --- | --- | ---: | ---: | ---: | ---: |
| YOLOv7 | dense | missing | missing | missing | missing |
| YOLOv7 | 50 % | missing | missing | missing | missing |
| YOLOv7 | 70 % | missing | missing | missing | missing |
| YOLOv8n | dense | 40.0 ± 0.0 | — | 3.000 | 40.0 ± 0.0 |
| YOLOv8n | 50 % | 37.5 ± 0.7 | — | 0.750 | 20.0 ± 0.0 |
| YOLOv8n | 70 % | 30.0 | — | 0.750 | 20.0 |

- Data: VOC2007, 448-image subset.
- Schedule: 100 + 20 epochs (training + fine-tuning), 640 px.
- Mean ± sample standard deviation over 1 to 2 seeds.
- AP values × 100.
- Latency: one image, median of 20 runs, Test CPU, 1 thread.
- missing: no record holds this cell yet.
- —: does not apply, or the images hold no such objects.
"""

LATEX = r"""\begin{table}
\centering
\setlength{\belowcaptionskip}{1ex}
\caption{VOC\_2007 \& more}
\label{tab:small}
\begin{tabular}{llrrrr}
\toprule
Detector & Ratio & mAP50-95 & APL & Parameters (M) & Latency (ms) \\
\midrule
YOLOv7 & dense & missing & missing & missing & missing \\
YOLOv7 & 50 \% & missing & missing & missing & missing \\
YOLOv7 & 70 \% & missing & missing & missing & missing \\
YOLOv8n & dense & 40.0 $\pm$ 0.0 & --- & 3.000 & 40.0 $\pm$ 0.0 \\
YOLOv8n & 50 \% & 37.5 $\pm$ 0.7 & --- & 0.750 & 20.0 $\pm$ 0.0 \\
YOLOv8n & 70 \% & 30.0 & --- & 0.750 & 20.0 \\
\bottomrule
\end{tabular}
"""


@pytest.fixture
def table(cell):
    seeds = [cell(seed=0, aps=(0.4, 0.0, 0.37)), cell(seed=1, aps=(0.4, 0.0, 0.38))]
    return build_table(LAYOUT, measurements([*seeds, cell(ratio=0.7, aps=(0.4, 0.0, 0.3)), cell(ratio=0.1)]))


def test_markdown(table):
    assert markdown([table]) == MARKDOWN


def test_latex(table):
    text = latex([table])
    assert text.startswith(LATEX)
    note = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize Data: VOC2007, 448-image subset. Schedule: "
    assert text[len(LATEX) :].startswith(note)
    assert text.endswith("\\end{minipage}\n\\end{table}\n")


def test_csv_holds_raw_values(table):
    rows = list(csv.DictReader(io.StringIO(csv_text([table]))))
    half = next(row for row in rows if row["Detector"] == "YOLOv8n" and row["Ratio"] == "50 %")
    assert float(half["map50_95"]) == pytest.approx(0.375) and half["map50_95_n"] == "2"
    assert half["parameters"] == "750000.0" and half["ap_large"] == "" and half["missing"] == ""
    assert half["run_ids"] == "yolov8n-voc2007-dcodp-0.5-0 yolov8n-voc2007-dcodp-0.5-1"
    lost = next(row for row in rows if row["Detector"] == "YOLOv7")
    assert lost["map50_95"] == "" and lost["map50_95_n"] == "0"
    assert lost["missing"] == "map50_95 ap_large parameters latency_ms"


def test_missing_cells_are_listed(table):
    assert table.missing == ("YOLOv7, dense", "YOLOv7, 50 %", "YOLOv7, 70 %")


def test_settings_get_rows_of_their_own(cell):
    small = cell(image_size=320, aps=(0.2, 0.0, 0.1), run_id="small")
    built = build_table(LAYOUT, measurements([cell(), small]))
    labels = {row.labels[0] for row in built.rows}
    assert labels == {"YOLOv7", "YOLOv8n [image_size=640]", "YOLOv8n [image_size=320]"}
    values = {row.labels: row.cells[0].mean for row in built.rows}
    assert values[("YOLOv8n [image_size=320]", "50 %")] == 0.1
    assert values[("YOLOv8n [image_size=640]", "50 %")] == 0.38
    assert values[("YOLOv8n [image_size=320]", "dense")] == 0.2


def test_columns_of_several_stages(cell):
    layout = TableLayout(
        "ablation",
        "Ablation",
        rows={"importance": ("slimming", "dcodp"), "interlayer": (False, True)},
        columns=(Column("before", "map50_95", stage="pruned"), Column("after", "map50_95", stage="finetuned")),
        where={
            "dataset": "voc2007",
            "model": "yolov8n",
            "ratio": 0.5,
            "allocation": "uniform",
            "repair": "own",
            "recovery": "labels",
            "steps": 1,
            "target": "",
        },
        labels={"importance": {"dcodp": "CP"}},
    )
    text = markdown([build_table(layout, measurements([cell(), cell(importance="slimming", interlayer=False)]))])
    assert "| dense [train.sparsity=0.0] |  | — | 40.0 |" in text
    assert "| Slimming | no | 1.0 | 38.0 |" in text
    assert "| Slimming | yes | missing | missing |" in text
    assert "| CP | yes | 1.0 | 38.0 |" in text


def test_default_tables_show_what_was_measured(cell):
    records = [
        cell(),
        cell(ratio=0.2, aps=(0.4, 0.1, None), status="running"),
        cell(target="flops:0.5", run_id="target"),
        cell(dataset="shapes"),
    ]
    shapes, voc = default_tables(measurements(records))
    assert (shapes.title, voc.title) == ("YOLOv8n on shapes", "YOLOv8n on VOC2007")
    assert [row.labels for row in voc.rows] == [
        ("dense", "", ""),
        ("dcodp", "20 %", "pruned"),
        ("dcodp", "20 %", "fine-tuned"),
        ("dcodp", "50 %", "pruned"),
        ("dcodp", "50 %", "fine-tuned"),
        ("dcodp", "FLOPs to 50 %", "pruned"),
        ("dcodp", "FLOPs to 50 %", "fine-tuned"),
    ]
    assert voc.missing == ("dcodp, 20 %, fine-tuned",)
    assert "Includes stages of runs that are not done: yolov8n-voc2007-dcodp-0.2-0 (running)." in voc.footnotes
    assert default_tables(measurements([])) == []


def test_fine_tuning_that_was_not_asked_for_is_not_missing(cell):
    record = cell(aps=(0.4, 0.1, None))
    record.config["finetune"]["epochs"] = 0
    (table,) = default_tables(measurements([record]))
    assert [row.labels for row in table.rows] == [("dense", "", ""), ("dcodp", "50 %", "pruned")]
    assert table.missing == ()


@pytest.mark.parametrize(("control", "missing"), [("none", ("repaired",)), ("scratch", ())])
def test_a_net_from_random_weights_has_no_repair_to_miss(cell, control, missing):
    (table,) = default_tables(measurements([cell(repair={"name": "rescale"}, control=control)]))
    assert [name.rpartition(", ")[2] for name in table.missing] == list(missing)


def test_whole_and_partial_data_are_told_apart(cell, evaluation):
    whole = cell(dense=evaluation(0.4, subset=False, images=4952), aps=(None, None, None))
    (table,) = default_tables(measurements([whole]))
    assert table.footnotes[0] == "Data: VOC2007 (4952 images)."
    part = cell(aps=(0.4, None, None))
    part.provenance["images"]["train"] = 126
    (table,) = default_tables(measurements([part]))
    assert table.footnotes[0] == "Data: VOC2007, 448-image subset (trained on a 126-image subset)."


def test_two_machines_are_named(cell, evaluation):
    other = evaluation(0.3, latency={"device": "GPU", "threads": None, "runs": 50})
    (table,) = default_tables(measurements([cell(finetuned=other)]))
    assert (
        "Latency: one image, median of 20 to 50 runs, Test CPU, 1 thread; GPU; rows on different hardware cannot be "
        "compared." in table.footnotes
    )


def test_names_are_no_markdown(cell):
    (table,) = default_tables(measurements([cell(dataset="<b>a|b*c`")]))
    assert r"### YOLOv8n on \<b>a\|b\*c\`" in markdown([table])


def test_starting_points_are_listed_once_for_each_schedule(cell):
    records = [cell(ratio=r) for r in (0.2, 0.5, 0.7)]
    for record, file in zip(records, ("b.pt", "a.pt", None), strict=True):
        record.config["model"] |= {"weights": file, "name": f"net {file}"}
    layout = TableLayout("t", "", rows={"model": ("*",), "ratio": (0.2, 0.5, 0.7)}, columns=LAYOUT.columns, where=WHERE)
    note = build_table(layout, measurements(records)).footnotes[1]
    start = "from a.pt, b.pt, random weights."
    assert note == f"Schedule: 100 + 20 epochs (training + fine-tuning), 640 px, {start}"


def test_the_rule_behind_voc_map_is_said(cell, evaluation):
    columns = (COLUMNS["voc_map"],)
    layout = TableLayout("t", "", rows={"model": ("yolov8n",), "ratio": (0.5,)}, columns=columns, where=WHERE)
    tested = evaluation(0.4, voc_ap={"rule": "voc2007", "map": 0.6, "per_class": {}})
    table = build_table(layout, measurements([cell(finetuned=tested)]))
    assert "VOC mAP: at IoU 0.5, mean of 11 recall levels, as in VOC2007." in table.footnotes


def test_tables_of_one_page_have_names_of_their_own(cell):
    records = [cell(), cell(image_size=320, run_id="small"), cell(model="yolov7"), cell(dataset="voc2012")]
    names = [table.name for table in default_tables(measurements(records))]
    assert len(names) == len(set(names)) == 4


def test_a_criterion_with_a_dense_net_of_its_own_stands_in_the_same_table_and_so_does_that_net(cell):
    layout = TableLayout(
        "ablation",
        "Ablation",
        rows={"importance": ("slimming", "dcodp")},
        columns=(COLUMNS["map50_95"],),
        where={"dataset": "voc2007", "model": "yolov8n", "interlayer": True, "target": "flops:0.25"},
    )
    records = [cell(importance="slimming", target="flops:0.25", aps=(0.36, 0, 0.3)), cell(target="flops:0.25")]
    lines = markdown([build_table(layout, measurements(records))]).splitlines()
    assert [line for line in lines if line.startswith("| ")][2:] == [
        "| dense [train.sparsity=0.0001] | 36.0 |",
        "| dense [train.sparsity=0.0] | 40.0 |",
        "| Slimming | 30.0 |",
        "| DCODP | 38.0 |",
    ]


def test_nets_from_dense_nets_that_were_trained_otherwise_do_not_share_a_cell(cell):
    sparse = cell(aps=(0.36, 0, 0.3), run_id="sparse")
    sparse.config["train"]["sparsity"] = 1e-4
    built = build_table(LAYOUT, measurements([cell(), sparse]))
    values = {row.labels: row.cells[0].mean for row in built.rows}
    assert values["YOLOv8n [train.sparsity=0.0]", "50 %"] == 0.38
    assert values["YOLOv8n [train.sparsity=0.0001]", "50 %"] == 0.3


def test_a_table_of_nothing_is_not_measured(cell):
    frame = measurements([cell(dataset="coco2017")])
    assert not build_table(LAYOUT, frame).measured and build_table(LAYOUT, measurements([cell()])).measured


def test_seeds_of_one_target_are_one_row(cell):
    """A target leaves no ratio, and not a number is no other than not a number."""
    cells = [cell(target="flops:0.5", seed=seed, run_id=f"run{seed}") for seed in range(3)]
    (table,) = default_tables(measurements(cells))
    assert [row.cells[0].n for row in table.rows if not row.dense] == [3, 3]
