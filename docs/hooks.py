"""What mkdocs does with links that lead out of docs/: pictures come along, other files are named without a link.

On the repository's own pages such links work as they stand. The site has no address of the repository to lead to.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s:#]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """The pictures that pages show from elsewhere in the repository, under the path that they have there."""
    for page in [file for file in files if file.is_documentation_page()]:
        for match in LINK.finditer(Path(page.abs_src_path).read_text(encoding="utf-8")):
            path = outside(page.abs_src_path, match["target"])
            if match["picture"] and path is not None and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    def led(match: re.Match[str]) -> str:
        path = outside(page.file.abs_src_path, match["target"])
        if path is None:
            return match[0]
        if match["picture"]:
            return f"![{match['text']}]({'../' * page.file.src_uri.count('/')}{path})"
        return match["text"] if path in match["text"] else f"{match['text']} (`{path}`)"

    markdown = re.sub(r"<details>", '<details markdown="1">', markdown)
    return LINK.sub(led, markdown)


def outside(page: str, target: str) -> str | None:
    """The path in the repository of a file that lies outside of docs/; None for any other link."""
    path = (Path(page).parent / target).resolve()
    if not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "docs"):
        return None
    return path.relative_to(ROOT).as_posix()
