"""README.md and docs/: links lead somewhere, commands and code are taken by dcodp, figures have a source."""

import ast
import importlib
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
import torchvision
import typer.main
from documented import DOCS, FENCE, IDS, PAGES, ROOT, blocks, lines

from dcodp import compose
from dcodp.cli import build_app
from dcodp.commands.run import _parsed
from dcodp.compose import cells, expanded, register

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]*)\)")
RENDERED = re.compile(r"<!-- (?!end)(.*?) -->\n(.*?)<!-- end -->", re.S)
NOT_MEASURED = {"2.15.0", "1.6.1", "0.5"}  # versions, and a ratio


def prose(text: str) -> str:
    """Without code, rendered tables and the targets of links."""
    text = RENDERED.sub("", FENCE.sub("", text))
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)


# --- form ---


def test_readme_is_read_in_two_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def slug(heading: str) -> str:
    """The anchor of a heading, as repository pages and mkdocs both make it."""
    text = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return text.strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)}


def broken(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere; addresses elsewhere are not looked at. "[a] [b]" is a link by name, which
    no page defines."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    found = re.findall(r"\] ?\[([^\]]+)\](?!\()", text)
    for link in LINK.findall(text):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if re.match(r"\w+:", link):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page):
    assert broken(page, page.read_text()) == []


def test_a_broken_link_is_found():
    page, text = (
        ROOT / "README.md",
        "[a](docs/none.md) [b](docs/limits.md#none) [c](docs/limits.md) [d](#licence) [e](#no) strong [f] [g=1]",
    )
    assert broken(page, text) == ["g=1", "docs/none.md", "docs/limits.md#none", "#no"]


def test_every_page_is_reached_from_readme():
    todo, reached = [ROOT / "README.md"], set()
    while todo:
        page = todo.pop()
        reached.add(page)
        links = ((page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(page.read_text()))
        todo += [path for path in set(links) if path.suffix == ".md" and path.is_file() and path not in reached]
    assert set(DOCS.rglob("*.md")) <= reached


# --- commands ---


def commands() -> list[str]:
    return [line for line in lines() if re.match(r"dcodp |python run\.py |make ", line)]


def taken(line: str) -> None:
    """Raises where the command line would be refused before it does anything."""
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), line
    elif words[:2] == ["python", "run.py"] or words[1] == "run":
        composed(words[2:])
    else:
        command, words = typer.main.get_command(build_app()), words[1:]
        while getattr(command, "commands", None):
            command = command.commands[words.pop(0)]
        command.make_context("dcodp", words)


def composed(words: list[str]) -> None:
    """Of a sweep each value is composed once, not each combination."""
    register()
    typed, overrides = _parsed(expanded(words))
    overrides = [word for word in overrides if not word.startswith("-")]
    found = cells(ROOT / "conf", overrides, typed.config_dir)
    assert typed.multirun or len(found) == 1


@pytest.fixture
def few_cells(monkeypatch):
    """A sweep composes only cells with a value that none before had; others stand in for the rest."""
    whole, seen, found = compose._compose, set(), []

    def once(overrides: list[str]):
        new = set(overrides) - seen
        seen.update(new)
        found[:] = [whole(overrides)] if new else found
        return found[0]

    monkeypatch.setattr(compose, "_compose", once)


@pytest.mark.parametrize("line", commands())
def test_every_command_is_taken(line, few_cells):
    taken(line)


def test_commands_of_every_kind_are_shown():
    shown = "\n".join(commands())
    for word in ("dcodp prune", "dcodp export", "dcodp graph", "dcodp data fetch", "python run.py -m", "make docs"):
        assert word in shown


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("dcodp prune best.pt --budget 2", "--budget"),
        ("dcodp status --all", "--all"),
        ("make tea", "make tea"),
        ("dcodp run ratio=2", "ratio=2"),
    ],
)
def test_a_wrong_command_is_found(line, told):
    with pytest.raises(Exception, match=told):
        taken(line)


# --- code ---


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_what_python_examples_import_is_there(page):
    for block in blocks(page.read_text(), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dcodp"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dcodp":
                assert hasattr(importlib.import_module("dcodp"), node.attr), node.attr


def test_the_example_of_readme_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text().partition("## Prune your own model in Python")[2].partition("\n## ")[0]
    (example,) = blocks(text, "python")
    monkeypatch.chdir(tmp_path)
    names = {"model": torchvision.models.resnet18().eval(), "dense_architecture": torchvision.models.resnet18()}
    names["images"] = torch.rand(2, 3, 64, 64)
    exec(compile(example, "README.md", "exec"), names)
    assert sum(p.numel() for p in names["small"].parameters()) < sum(p.numel() for p in names["model"].parameters()) / 2


def test_the_repair_of_the_documentation_works():
    text = (DOCS / "how-to/repair.md").read_text()
    (file,) = re.findall(r"^`src/\S+`:\n\n```python\n(.*?)^```$", text, re.M | re.S)
    names: dict = {}
    exec(compile(file, "repair.md", "exec"), names)
    import dcodp
    from dcodp import repairs

    repairs.register("louder", names["REPAIR"])
    model, images = torchvision.models.resnet18().eval(), torch.rand(1, 3, 32, 32)
    graph = dcodp.trace(model, (images,))
    plan = dcodp.select(graph, {group.name: torch.arange(group.channels).double() for group in graph.groups}, ratio=0.5)
    small = dcodp.prune(model, plan)
    better = dcodp.repair(model, small, plan, [images], how="louder")
    torch.testing.assert_close(better.conv1.weight, small.conv1.weight * 1.01)


# --- figures ---


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((DOCS / "results").glob("*.md")), DOCS / "limits.md"])
def test_every_figure_in_prose_stands_in_a_table(page):
    """Decimals of the text are among those of the page's rendered tables, or of a document that it names."""
    text = page.read_text()
    named = [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text)]
    sources = [body for _, body in RENDERED.findall(text)]
    sources += [p.read_text() for p in named if p.is_file() and p.parent == ROOT / "results" and p.suffix == ".md"]
    known = set(re.findall(r"\d+\.\d+(?:e-\d+)?", " ".join(sources))) | NOT_MEASURED
    said = re.sub(r"doi \S+|AGPL-\S+|Python [\d.-]+", "", prose(text))
    assert set(re.findall(r"\d+\.\d+(?:e-\d+)?", said)) <= known


# --- what is made from the code ---


def test_the_reference_names_every_key_and_command():
    keys = runpy.run_path(str(DOCS / "made/configuration.py"))["configuration_keys"]()
    for key in ("`ratio`", "`train.epochs`", "`allocation.floor`", "`wandb.mode`", "`dataset.broken`"):
        assert f"| {key} |" in keys
    assert (
        "| `ratio` | `0.5` | 0.0 … below 1.0 |" in keys
        and "| `allocation.name` | `uniform` | `uniform`, `global`" in keys
    )
    page = (DOCS / "reference/commands.md").read_text()
    assert {f"## `dcodp {name}`" for name in ("run", "prune", "export", "report", "data check")} <= set(
        page.splitlines()
    )


def test_the_version_is_one():
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    released = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == version and f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
