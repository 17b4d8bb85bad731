"""The page in a real browser, desktop and phone: silent, whole offline, within the window, reachable by keyboard.

    pytest -m slow tests/report/test_page_in_browser.py

needs Chromium on the PATH. With -s it names the folder of the page and of the pictures taken.
"""

import pytest
from browser import CHROMIUM, tab
from made_up import ODD, ROOT, full_records, render

from dcodp.records import read_study
from dcodp.report.claims import all_claims

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")]
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"
# Where the boxes end that no .scroll holds, in pixels from the left
EDGES = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll')).map(
  each => each.getBoundingClientRect().right + scrollX)"""
SCROLLERS = """[...document.querySelectorAll('*')].filter(each => each.scrollWidth > each.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(each).overflowX))"""
TARGETS = """[...document.querySelectorAll('a[href], summary, button, input, [tabindex]')].filter(
  each => each.checkVisibility())"""
FOCUS = f"""(each => ({{at: {TARGETS}.indexOf(each), width: parseFloat(getComputedStyle(each).outlineWidth),
  style: getComputedStyle(each).outlineStyle}}))(document.activeElement)"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    print("\npage and pictures:", folder)
    return render(folder).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(params=[*SIZES, "dark"])
def opened(request, browser, page):
    browser.open(page, *SIZES.get(request.param, SIZES["desktop"]), dark=request.param == "dark")
    browser.picture(page.parent / f"{request.param}.png")
    return browser


def test_nothing_is_fetched_and_nothing_complains(opened, page):
    assert opened.complaints() == []
    assert [url for url in opened.requests() if not url.startswith("data:")] == [page.as_uri()]
    assert opened.value("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    assert opened.value("document.images.length") > 20


def test_nothing_stands_out_of_the_window_closed_or_open(opened):
    for _ in range(2):
        assert opened.value("document.documentElement.scrollWidth") <= opened.width
        assert opened.value(f"Math.max(...{EDGES})") <= opened.width
        assert opened.value(f"{SCROLLERS}.every(each => each.tabIndex >= 0 && each.getAttribute('aria-label'))")
        opened.value(OPEN_ALL)
    assert opened.value(f"{SCROLLERS}.length") > 0


def test_text_and_figures_are_large_enough_to_read(opened):
    opened.value(OPEN_ALL)
    sizes = "[...document.querySelectorAll('main *')].map(each => parseFloat(getComputedStyle(each).fontSize))"
    assert opened.value(f"Math.min(...{sizes})") >= 12
    assert opened.value("Math.min(...[...document.images].map(each => each.getBoundingClientRect().width))") >= 800


def test_the_tab_key_reaches_everything_and_shows_where_it_is(opened):
    expected, seen = opened.value(f"{TARGETS}.length"), []
    for _ in range(expected):
        opened.press("Tab", 9)
        seen.append(opened.value(FOCUS))
    assert [focus["at"] for focus in seen] == list(range(expected)) and expected > 100
    assert all(focus["style"] != "none" and focus["width"] >= 2 for focus in seen)


# The table of YOLOv8n on VOC2007: several methods, three seeds, and below a figure of every column
TABLE = "document.querySelector('#measured [aria-label=\"YOLOv8n on VOC2007\"] table')"
HEAD = f"[...{TABLE}.tHead.rows[0].cells].find(each => each.textContent === '%s')"
COLUMN = f"[...{TABLE}.tBodies[0].rows].map(each => each.cells[{HEAD}.cellIndex].innerText)"
FIELD = f"{TABLE}.closest('.scroll').previousElementSibling.querySelector('input')"


def ordered(opened, head: str) -> list[str]:
    """Enter on the header, and what then stands in its column."""
    opened.value(f"{HEAD % head}.querySelector('button').focus()")
    opened.press("Enter", 13, "\r")
    return opened.value(COLUMN % head)


def number(shown: str) -> float:
    return float(shown.partition(" ")[0])


def test_tables_are_sorted_by_their_headers(opened):
    """Up, down, and as they were; what is missing comes last either way."""
    opened.value(f"{TABLE}.tBodies[0].rows[3].cells[{HEAD % 'mAP50-95'}.cellIndex].textContent = 'missing'")
    written = opened.value(COLUMN % "mAP50-95")
    numbers = sorted(map(number, set(written) - {"missing"}))
    rising = ordered(opened, "mAP50-95")
    assert rising[-1] == "missing" and list(dict.fromkeys(map(number, rising[:-1]))) == list(dict.fromkeys(numbers))
    assert opened.value(f"{HEAD % 'mAP50-95'}.getAttribute('aria-sort')") == "ascending"
    falling = ordered(opened, "mAP50-95")
    assert falling[-1] == "missing" and [*map(number, falling[:-1])] == sorted(map(number, rising[:-1]), reverse=True)
    assert ordered(opened, "mAP50-95") == written != rising
    assert opened.value(f"{TABLE}.querySelectorAll('[aria-sort=none]').length") == 13


def test_words_and_budgets_are_sorted_as_words_with_their_numbers(opened):
    assert [text for text in ordered(opened, "Ratio") if text][:3] == ["10 %", "10 %", "20 %"]
    assert ordered(opened, "Ratio")[0] == "70 %" and ordered(opened, "Method")[0] == "dcodp"
    assert opened.value(f"{HEAD % 'Ratio'}.getAttribute('aria-sort')") == "none"


def test_tables_are_filtered_by_words(opened):
    """Run ids and what else a row opens are no part of it."""
    every = opened.value(f"{TABLE}.tBodies[0].rows.length")
    opened.value(f"{FIELD}.focus()")
    opened.call("Input.insertText", text="Slimming tuned")
    shown = f"[...{TABLE}.tBodies[0].rows].filter(each => each.checkVisibility()).map(each => each.innerText)"
    left = opened.value(shown)
    assert len(left) == 2 and all("slimming" in row and "fine-tuned" in row for row in left)
    assert opened.value(f"{FIELD}.closest('p').innerText").endswith(f"2 of {every} rows")
    opened.call("Input.insertText", text=" yolov8n-voc2007")
    assert opened.value(shown) == []
    opened.value(f"{FIELD}.value = ''; {FIELD}.dispatchEvent(new Event('input'))")
    assert len(opened.value(shown)) == every


def test_fields_and_headers_have_names(opened):
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    found = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node.get("ignored")}
    assert ("searchbox", "Rows with (YOLOv8n on VOC2007)") in found and ("button", "mAP50-95") in found
    assert not any(role in ("button", "searchbox", "image") and not name for role, name in found)


def test_without_javascript_every_table_stands_as_it_was_written(opened, page):
    opened.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.open(page, 1280, 900)
        tree = opened.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in tree]
        assert "searchbox" not in roles and "button" not in roles and roles.count("row") > 100
    finally:
        opened.call("Emulation.setScriptExecutionDisabled", value=False)


def test_provenance_is_one_key_away(opened):
    """Enter on the number beside the labels of a row opens the run, its seed, code and data."""
    opened.value("document.querySelector('#tables td summary').focus()")
    opened.press("Enter", 13, "\r")
    text = opened.value("document.querySelector('#tables td details[open]').innerText")
    assert all(word in text for word in ("seed 0", "code made-up", "torch 2.15.0", "data train: beef"))
    links = opened.value("[...document.querySelectorAll('main a')].map(each => each.getAttribute('href'))")
    assert links and all(opened.value(f"document.getElementById({link[1:]!r}) !== null") for link in set(links))


def test_every_claim_has_a_verdict_on_every_data_set(opened):
    opened.value(OPEN_ALL)
    rows = opened.value("[...document.querySelectorAll('#claims tbody tr')].map(each => each.innerText)")
    assert [claim.statement in row for claim, row in zip(all_claims().values(), rows, strict=True)] == [True] * len(
        all_claims()
    )
    cells = "[...document.querySelectorAll('#claims tbody td')].map(each => each.innerText)"
    words = ("✓ holds", "✗ fails", "· not measured")
    assert all(sum(word in cell for word in words) == 1 for cell in opened.value(cells))
    assert all(any(word in cell for cell in opened.value(cells)) for word in words)


def test_what_is_missing_odd_or_failed_is_said_as_text(opened):
    text = opened.value("document.body.innerText")
    statuses = [record.status for record in full_records()]
    demonstration = len(read_study(ROOT / "results" / "demo"))
    assert f"{statuses.count('done') + demonstration} done, 1 failed, 1 interrupted" in text
    assert "missing" in text and ODD in text and "448-image subset" in text
    assert "document.title = 'not escaped'" in text and opened.value("document.title") == "dcodp report"
