"""What README.md and docs/ show: pages, blocks of code, command lines."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "results/README.md", *sorted(DOCS.rglob("*.md"))]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language in languages]


def lines() -> dict[str, str]:
    """Every command line in a block without a language → the page that shows it first; `\\` goes on, `#` explains."""
    found: dict[str, str] = {}
    for page, name in zip(PAGES, IDS, strict=True):
        for block in blocks(page.read_text(), "", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                found.setdefault(" ".join(line.partition(" #")[0].split()), name)
    return {line: page for line, page in found.items() if re.match(r"dcodp |python \S+\.py|make |pip |\.venv/", line)}
