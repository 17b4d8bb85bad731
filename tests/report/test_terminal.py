"""The table printed after a run."""

import io

from rich.console import Console

from dcodp.report.terminal import print_results


def test_table_fits_a_hundred_columns(cell):
    to = Console(file=io.StringIO(), width=100)
    print_results([cell(), cell(image_size=320, run_id="small")], to)
    text = to.file.getvalue()
    assert "YOLOv8n on VOC2007 [image_size=320]" in text  # brackets are no markup
    assert "│ dcodp  │ 50 %  │ fine-tuned │  57.0 │     38.0 │      0.750 │ 75.0 │      2.40 │ 70.0 │ 20.0 │" in text
    assert "VOC2007, 448-image subset" in text
    assert max(map(len, text.splitlines())) <= 100
