"""The floors of the house: a room imports rooms below it and none above, and no module stands on itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# Lowest first; each may import what stands before it. What flows through the house goes the same way: configuration →
# data, graph → evidence → scores → plan → repaired, detector → trained → measured → record → table → command.
FLOORS = (
    *(
        "errors",
        "extras",
        "resources",
        "registry",
        "targets",
        "files",
        "copying",
        "progress",
        "_ultralytics",
        "devices",
        "processor",
    ),  # the ground
    *("config", "method", "identity"),  # what is asked for
    *("data", "graph", "calibration", "importance", "pruning", "repairs", "testing"),  # nets and images
    *("detectors", "evaluation", "export"),
    *("records", "training", "tracking", "report"),  # what is kept, and what is made of it
    *("stepping", "pipeline", "own", "workers", "planning", "compose", "yolo", "named", "show", "commands", "cli"),
    "dcodp",  # the public names, each imported when it is asked for
)
# Known offenders. The lists only get shorter: one that offends no more fails here too.
UPWARD: set[tuple[str, str]] = set()  # (room, room above that it imports)
IN_CYCLES: set[str] = set()


def imports(source: Path) -> dict[str, set[str]]:
    """Every module of dcodp → those that it imports: at its top, in functions, and for annotations alone."""
    files = {_name(path.relative_to(source)): path for path in (source / "dcodp").rglob("*.py")}
    return {name: set(_imported(ast.parse(path.read_text()), set(files))) - {name} for name, path in files.items()}


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):  # modules of a package, or names of a module
            assert not node.level, "relative imports are not followed here; write the whole name"
            named = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from {name if name in modules else str(node.module) for name in named} & modules


def room(module: str) -> str:
    """ "dcodp.graph.rules" → "graph"; the package itself is "dcodp"."""
    return [*module.split("."), "dcodp"][1]


def upward(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """(room, room above that it imports)."""
    arrows = {(room(module), room(other)) for module, others in graph.items() for other in others}
    return {(one, other) for one, other in arrows if FLOORS.index(other) > FLOORS.index(one)}


def in_cycles(graph: dict[str, set[str]]) -> set[str]:
    """The modules that reach themselves."""
    return {module for module in graph if module in _reached(graph, module)}


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - found
        found |= new
        todo += new
    return found


def test_every_room_has_a_floor():
    assert {room(module) for module in imports(SOURCE)} <= set(FLOORS) and len(set(FLOORS)) == len(FLOORS)


def test_no_room_imports_one_above_it():
    assert upward(imports(SOURCE)) == UPWARD


def test_no_module_imports_itself_by_way_of_others():
    assert in_cycles(imports(SOURCE)) == IN_CYCLES


@pytest.mark.parametrize(
    ("line", "arrow"),
    [
        ("import dcodp.graph.labels", {("data", "graph")}),
        ("from dcodp import graph", {("data", "graph")}),
        ("def later():\n    from dcodp.graph.labels import Labels", {("data", "graph")}),
        ("if TYPE_CHECKING:\n    from dcodp.graph import labels", {("data", "graph")}),
        ("from dcodp.errors import InputError", set()),
    ],
)
def test_offenders_are_found(tmp_path, line, arrow):
    texts = {"data/types": line, "graph/labels": "from dcodp.graph import trace", "errors": "import torch"}
    texts["graph/__init__"] = "if TYPE_CHECKING:\n    from dcodp.graph.labels import Labels"
    for name, text in texts.items():
        path = tmp_path / "dcodp" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = imports(tmp_path)
    assert upward(found) == arrow
    assert in_cycles(found) == {"dcodp.graph", "dcodp.graph.labels"}
