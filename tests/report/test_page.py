"""The page: whole in itself, well-formed, every cell with its provenance."""

import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import made_up
from PIL import Image

from dcodp.errors import InputError
from dcodp.records import run_folder, write_record
from dcodp.report import build
from dcodp.report.labels import BESIDE
from dcodp.report.layouts import FigureLayout
from dcodp.report.page import DrawnFigure

CSS = (BESIDE / "templates" / "style.css").read_text()
VOID = {"meta", "img", "br"}
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


class Checker(HTMLParser):
    """Collects references, ids and text; notes tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.sources, self.links, self.ids, self.tags = [], [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def recorded(folder: Path) -> Path:
    """Two seeds of a cell and a failed one, with one picture."""
    failed = made_up(ratio=0.7, aps=(0.4, 0.01, None), status="failed")
    failed.error = "ValueError: <script>alert(1)</script>"
    for record in (made_up(), made_up(seed=1), failed):
        write_record(run_folder(folder, record.run_id), record)
    Image.new("RGB", (2000, 900), "red").save(run_folder(folder, made_up().run_id).pictures)
    return folder


@pytest.fixture
def results(tmp_path) -> Path:
    return recorded(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The folder that a report was written into, once for all that only read it."""
    results = recorded(tmp_path_factory.mktemp("results"))
    layouts = results / "experiments"
    layouts.mkdir()
    for name in ("table1_voc2007", "figure7_ratio", "figure6_coco2017_sizes"):
        shutil.copy(EXPERIMENTS / f"{name}.yaml", layouts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "default_figures", lambda dataset: ())
        return build.render_report(results, results / "out", layouts).page.parent


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "report.html").read_text(encoding="utf-8")


def test_page_stands_alone_and_is_well_formed(page):
    checker = Checker()
    checker.feed(page)
    assert checker.wrong == [] and checker.open == []
    assert checker.sources and all(source.startswith("data:image/") for source in checker.sources)
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert len(checker.ids) == len(set(checker.ids))
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", page))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert not any(tag in ("link", "iframe") for tag, _ in checker.tags)
    assert [values for tag, values in checker.tags if tag == "script"] == [{}]  # its own, which tables stand without
    assert "<button" not in page.partition("<script>")[0] and "<input" not in page.partition("<script>")[0]


def test_page_is_for_phones_keyboards_and_the_dark(page):
    checker = Checker()
    checker.feed(page)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in checker.tags
    boxes = [values for tag, values in checker.tags if values.get("class") == "scroll"]
    tables = [tag for tag, _ in checker.tags if tag == "table"]
    assert len(boxes) >= len(tables) > 0 and all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    alts = [values["alt"] for tag, values in checker.tags if tag == "img" and "png" in values["src"]]
    assert alts and all(re.search(r"mAP50 × 100 .*YOLOv8n: 60\.0 dense, 57\.0 at 50 %", alt) for alt in alts)
    assert all(values.get("alt") for tag, values in checker.tags if tag == "img")
    assert "prefers-color-scheme: dark" in page


def test_page_shows_values_missing_cells_verdicts_and_provenance(page):
    assert '<td class="measured">38.0 ± 0.0</td>' in page and '<td class="missing">missing</td>' in page
    assert "VOC2007, 448-image subset" in page and "Rendered from 3 records (2 done, 1 failed)." in page
    assert "✗ fails" in page and "· not measured" in page
    assert "done, seed 0, code abc123, torch 2.15.0, Test CPU, data train: beef, val: feed, 2 s" in page
    assert "Produce it with <code>dcodp run -m experiment=table3_coco</code>" in page
    assert page.count("data:image/jpeg") == 1


def undrawn(folder, layouts, frame):
    return [DrawnFigure(layout, None) for layout in layouts], []


def test_the_page_shows_what_is_left_after_each_stage(page):
    stages = page.partition('id="stages"')[2].partition("</section>")[0]
    assert re.findall(r"<h3>(.*?)</h3>", stages) == ["YOLOv8n on VOC2007: mAP50-95 after each stage"]
    assert '<td class="measured">1.0</td><td class="missing">missing</td>' in stages  # failed before fine-tuning


def test_experiments_without_any_record_are_one_line_each_at_the_end(results, monkeypatch):
    monkeypatch.setattr(build, "_draw_all", undrawn)
    report = build.render_report(results, results / "out", EXPERIMENTS)
    before, _, end = report.page.read_text(encoding="utf-8").partition('<section id="unrecorded">')
    lines = re.findall(r"<li>(.*?)</li>", end)
    title = "Table 3. COCO: dense, and fine-tuned after removing 20, 50 and 70 % of the channels"
    command = "<code>dcodp run -m experiment=table3_coco</code>"
    assert f"table3_coco (12 cells): {title}. Produce it with {command}." in lines and title not in before
    assert "figure6_coco2017_sizes: Figure 6. COCO: AP by object size. Produce it with " + command + "." in lines
    assert tuple(line.partition(":")[0].partition(" ")[0] for line in lines) == report.unrecorded
    assert "table1_voc2007" not in report.unrecorded  # it has some: its missing cells stay marked
    assert 'href="#unrecorded">what would make them' in before  # in place of the figures, none of which was drawn
    assert "</section>" not in end.partition("</section>")[2]


def test_claims_are_folded_where_no_record_bears_on_them(cell, tmp_path, page):
    write_record(run_folder(tmp_path, cell().run_id), cell(importance="random", run_id=cell().run_id))
    text = build.render_report(tmp_path, tmp_path).page.read_text(encoding="utf-8")
    line = "<details><summary>No record bears on any of the 8 claims enough to judge it.</summary>"
    assert line in text and line not in page


def test_runs_stand_beside_the_labels_where_they_are_seen_first(page):
    heads = re.search(r"<thead><tr>(.*?)</tr>", page.partition('id="tables"')[2])[1]
    assert re.findall(r"<th[^>]*>(.*?)</th>", heads)[:4] == ["Detector", "Ratio", "Runs", "mAP50"]
    row = '<td class="text">50 %</td><td class="text"><details><summary aria-label="2 runs: where the row comes from"'
    assert row in page


def test_tables_and_figures_carry_the_verdicts_on_their_own_data(page):
    tables = page.partition('id="tables"')[2].partition('id="figures"')[0]
    claims = re.findall(r"<li>Claim: (.*?)</li>", tables)
    assert claims[0] == 'The loss is minimal at 20 and 50 %. VOC2007: <span class="fails">✗ fails</span>'
    assert len(claims) == 4 and not any("VOC2012" in claim for claim in claims)
    figures = page.partition('id="figures"')[2].partition('id="pictures"')[0]
    assert "<li>Claim: Removing 10 to 50 % improves or keeps mAP. VOC2007: " in figures


def test_what_a_verdict_lacks_is_said_by_name(page):
    claims = page.partition('id="claims"')[2].partition("</section>")[0]
    for lacking in ("20 %, 50 %", "70 %", "YOLOv8, Faster R-CNN", "APM, APL, AP75", "Slimming, ThiNet, HRank"):
        assert f"<li>Still to measure: {lacking}</li>" in claims


def test_folders_of_the_machine_are_left_out(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_draw_all", lambda folder, layouts, frame: ([], []))
    record = cell()
    record.config["model"]["weights"] = "/home/somebody/yolov8n.pt"
    record.config["paths"]["data"] = "/home/somebody/data"
    write_record(run_folder(tmp_path, record.run_id), record)
    text = build.render_report(tmp_path, tmp_path).page.read_text(encoding="utf-8")
    assert "somebody" not in text and '"weights": "yolov8n.pt"' in unescape(text)


def test_no_name_is_markup(cell, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_draw_all", lambda folder, layouts, frame: ([DrawnFigure(x, b"") for x in layouts], []))
    odd = "<b>&\"'"
    names = {"model": odd, "dataset": odd, "importance": odd, "run_id": odd}
    record = cell(**names)
    record.stages[0]["per_class"] = {odd: {"map50": 0.1}}
    record.notes, record.error, record.status = [odd], odd, "failed"
    record.provenance |= {"device": odd, "data_fingerprint": odd, "code": {"git": odd}}
    record.provenance["pruning"] |= {"coupling": {odd: {"channels": 1, "layers": [odd]}}, "layers_frozen": {odd: odd}}
    layout = FigureLayout(odd, odd, "curve", ("map50",), {"dataset": odd}, claims=("minimal_loss",), command=odd)
    monkeypatch.setattr(build, "_layouts", lambda experiments: [layout])
    write_record(run_folder(tmp_path, odd), record)
    Image.new("RGB", (20, 9), "red").save(run_folder(tmp_path, odd).pictures)
    text = build.render_report(tmp_path, tmp_path).page.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.wrong == checker.open == [] and "b" not in {tag for tag, _ in checker.tags}
    assert text.count("&lt;b&gt;&amp;") > 20


def test_colours_can_be_read_in_the_light_and_in_the_dark():
    """WCAG 2.1, 1.4.3: a contrast of 4.5 to 1 at least."""
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", CSS, re.S))
    assert light.keys() == dark.keys() >= {"paper", "tint", "ink", "soft", "link", "good", "bad"}
    for colours in (light, dark):
        for name in ("ink", "soft", "link", "good", "bad"):
            for ground in ("paper", "tint"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def contrast(a, b):
    dim, bright = sorted((luminance(a), luminance(b)))
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour):
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_files_are_written(written):
    assert sorted(path.name for path in (written / "tables").iterdir()) == [
        *("results.csv", "results.md", "results.tex"),
        *("table1_voc2007.csv", "table1_voc2007.md", "table1_voc2007.tex"),
    ]
    assert sorted(path.name for path in (written / "figures").iterdir()) == ["figure7_ratio.pdf", "figure7_ratio.png"]


def test_an_old_figure_of_nothing_is_removed(results, monkeypatch):
    monkeypatch.setattr(build, "default_figures", lambda dataset: ())
    layouts, old = results / "experiments", results / "figures" / "figure6_coco2017_sizes.png"
    layouts.mkdir()
    old.parent.mkdir()
    old.write_bytes(b"old")
    shutil.copy(EXPERIMENTS / "figure6_coco2017_sizes.yaml", layouts)
    build.render_report(results, results, layouts)
    assert not old.exists()


def test_nothing_to_report_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no runs in .*; start with: dcodp run"):
        build.render_report(tmp_path, tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        (tmp_path / "runs" / "x").mkdir(parents=True)
        build.render_report(tmp_path, tmp_path, tmp_path / "nowhere")
