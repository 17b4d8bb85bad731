"""How the coupling graph is found: the text that lies beside its code."""

from pathlib import Path


def blocks(root: Path) -> dict[str, str]:
    """mark → Markdown, without its title."""
    text = (root / "src/dcodp/graph/README.md").read_text(encoding="utf-8")
    return {"coupling graph": text.partition("\n\n")[2].strip()}
