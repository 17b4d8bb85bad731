"""Cards of `dcodp prune` on the page."""

import json
import re

import pytest
from made_up import ROOT, write_card

from dcodp.errors import InputError
from dcodp.records import run_folder, write_record
from dcodp.report import build
from dcodp.report.cards import alike, gain_of, load_cards, panels, tables
from dcodp.report.formats import texts

TREE = json.loads((ROOT / "results" / "prune" / "card.json").read_text(encoding="utf-8"))
DENSE, SMALL = (f"{100 * TREE[net]['map50_95']:.1f}" for net in ("dense", "pruned"))
MACHINE = f"2 threads, {TREE['versions']['machine']}"


@pytest.fixture
def folder(tmp_path):
    """Two cards of one checkpoint, one of them of a net that was pruned further, and one of other images."""
    write_card(tmp_path / "half")
    smaller, asked = TREE["pruned"] | {"map50_95": 0.5, "flops": 5e8}, {"target": "flops:0.25", "method": "paper"}
    write_card(tmp_path / "quarter", pruned=smaller, asked=asked)
    write_card(tmp_path / "unlabelled", dense={"flops": 4e9}, pruned={"flops": 1e9}, latency={})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "card.json").write_text('{"suit": "hearts"}')
    return tmp_path


def test_cards_are_found_and_compared_with_their_like(folder):
    groups = [[card.name for card in group] for group in alike(load_cards(folder))]
    assert groups == [["half", "quarter"], ["unlabelled"]]
    assert [card.name for card in load_cards(folder / "half")] == ["half"]


def test_a_card_that_is_no_json_is_one_line(folder):
    (folder / "half" / "card.json").write_text("{")
    with pytest.raises(InputError, match=r"half/card\.json"):
        load_cards(folder)


def test_every_runtime_is_a_panel_of_its_own(folder):
    group = next(alike(load_cards(folder)))
    found = panels(group, gain_of(group))
    titles = ["", f"torch, {MACHINE}", f"onnxruntime 1.32.0, {MACHINE}"]
    assert [panel.title for panel in found] == titles
    flops = {(net.line, net.budget): (net.cost, net.gain) for net in found[0].nets}
    assert flops["paper", "FLOPs to 25 %"] == (0.5, 50) and len(flops) == 3  # the dense net once
    onnx = {net.budget: net.cost for net in found[2].nets}
    assert onnx["dense"] == TREE["latency"]["onnx"]["dense"]["median_ms"]
    assert onnx["FLOPs to 50 %"] == TREE["latency"]["onnx"]["pruned"]["median_ms"]


def test_the_table_has_both_nets_of_every_card(folder):
    compared, alone = tables(load_cards(folder))
    assert [row[:4] for row in texts(compared)] == [
        ["half", "dense", "", DENSE],
        ["half", "FLOPs to 50 %", "strong", SMALL],
        ["quarter", "dense", "", DENSE],
        ["quarter", "FLOPs to 25 %", "paper", "50.0"],
    ]
    assert [column.label for column in compared.columns][-1] == f"Latency (ms): onnxruntime 1.32.0, {MACHINE}"
    assert texts(alone)[1][3:] == ["—", "1.00"] and "Accuracy was not measured." in alone.footnotes


def test_a_page_of_cards_alone_and_beside_records(folder, cell, monkeypatch):
    text = build.render_report(folder, folder / "out").page.read_text(encoding="utf-8")
    assert "Rendered from 3 cards of dcodp prune." in text
    (alt,) = re.findall(r'<img alt="(.*?)"', text)
    dense, small = (f"{TREE['latency']['onnx'][net]['median_ms']:.3g}" for net in ("dense", "pruned"))
    told = f"strong: dense {DENSE} at {dense}, FLOPs to 50 % {SMALL} at {small}"
    assert f"onnxruntime 1.32.0, {MACHINE}: {told}" in alt
    monkeypatch.setattr(build, "_draw_all", lambda folder, layouts, frame: ([], []))
    write_record(run_folder(folder, cell().run_id), cell())
    text = build.render_report(folder, folder / "out").page.read_text(encoding="utf-8")
    assert "Rendered from 1 record (1 done) and 3 cards of dcodp prune." in text
