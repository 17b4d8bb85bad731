"""The documentation as a site, in a real browser, desktop and phone: made without a warning, whole offline, within the
window.

    pytest -m slow tests/report/test_site.py

needs mkdocs (make docs brings it), and for its second half Chromium on the PATH.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, tab

ROOT = Path(__file__).resolve().parents[2]
MKDOCS = shutil.which("mkdocs", path=str(Path(sys.executable).parent)) or shutil.which("mkdocs")
FETCHED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//|<link[^>]*\shref=\"(?:https?:)?//")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MKDOCS is None, reason="no mkdocs; make docs brings it")]
# Boxes that end right of the window and lie in none that scrolls or cuts
OUTSIDE = """[...document.querySelectorAll('.md-content *')].filter(each => {
  if (each.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let above = each; above; above = above.parentElement)
    if (/auto|scroll|hidden/.test(getComputedStyle(above).overflowX)) return false;
  return true }).map(each => each.tagName)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_every_page_is_made_and_asks_for_nothing_elsewhere(site):
    pages = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")} <= pages
    assert [page for page in site.rglob("*.html") if FETCHED.search(page.read_text())] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_no_page_is_wider_than_its_window(site, tmp_path, width, height):
    pages = [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]  # its links are the server's
    with tab(tmp_path) as browser:
        for page in pages:
            browser.open(page, width, height)
            assert browser.value("document.documentElement.scrollWidth") <= width, page
            assert browser.value(OUTSIDE) == [], page
            assert browser.value("[...document.images].every(each => each.complete && each.naturalWidth > 0)"), page
            assert [url for url in browser.requests() if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len(pages) > 20
