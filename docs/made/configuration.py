"""Every key of a run, with its default and what is allowed, from the schema; every group, with what can be chosen."""

import ast
import dataclasses
import inspect
import itertools
import re
from pathlib import Path
from typing import Any

from dcodp.config import Config, keys
from dcodp.report.formats import markdown_rows

FIELD = re.compile(r"^    (\w+): ([^=]+?)(?: = .*?)?(?:  # (.*))?$")
KINDS = {"bool": "true, false", "str": "text", "int": "whole number", "float": "number", "None": "null"}
GROUPS = ("method", "model", "dataset", "importance", "allocation", "repair", "schedule", "launcher", "experiment")


def blocks(root: Path) -> dict[str, str]:
    """mark → Markdown."""
    return {"configuration keys": configuration_keys(), "configuration groups": configuration_groups(root)}


def configuration_keys() -> str:
    """One table for each section of the schema, those of the whole first; what both trainings share stands once."""
    config = Config()
    sections = {"": config} | {key: value for key, value, _ in keys(config) if dataclasses.is_dataclass(value)}
    parts = [_section(name, section) for name, section in sections.items() if name != "finetune"]
    return "\n\n".join(parts)


def _section(name: str, section: Any) -> str:
    title, comments = f"{name}." if name else "", _comments(type(section))
    heading = {"": "The cell", "train": "`train.`, `finetune.`"}.get(name, f"`{title}`")
    said = inspect.cleandoc(section.__doc__ or "").partition("\n")[0]
    told = "" if said.startswith(type(section).__name__) else re.sub(r" \(.*\)", "", said) + "\n\n"
    rows = [
        [f"`{title}{declared.name}`", _default(name, declared.name, value), _allowed(declared), comments[key]]
        for key, value, declared in keys(section)
        if "." not in key and not dataclasses.is_dataclass(value)
    ]
    return f"### {heading}\n\n{told}" + markdown_rows([["key", "default", "allowed", "what it is"], *rows], right=())


def _default(section: str, key: str, value: Any) -> str:
    """Where the two trainings differ, both."""
    other = getattr(Config().finetune, key) if section == "train" else value
    return _code(value) if other == value else f"{_code(value)}; finetune: {_code(other)}"


def _code(value: Any) -> str:
    shown = {None: "null", True: "true", False: "false"}.get(value, value) if isinstance(value, bool | None) else value
    return f"`{shown}`"


def _allowed(declared: dataclasses.Field[Any]) -> str:
    if choices := declared.metadata.get("choices"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "range" not in declared.metadata:
        return " or ".join(KINDS[kind] for kind in str(declared.type).split(" | "))
    low, high, below = declared.metadata["range"]
    return f"{low:,} … {'below ' if below else ''}{high:,}"


def _comments(section: type) -> dict[str, str]:
    """{key: what stands behind it, or above it, in the schema}."""
    found, above = {}, []
    for line in inspect.getsource(section).splitlines():
        if line.startswith("    # "):
            above.append(line[6:])
        elif match := FIELD.match(line):
            found[match[1]] = " ".join(filter(None, [*above, match[3]])).replace("|", "\\|")
            above = []
    return found


def configuration_groups(root: Path) -> str:
    """What stands in conf/, a file for each choice, and what its first line says of it."""
    rows = [
        [f"`{group}={path.stem}`", _said(path, root)]
        for group in GROUPS
        for path in sorted((root / "conf" / group).glob("*.yaml"))
        if "tiny_test" not in path.stem
    ]
    return markdown_rows([["choice", "what it is"], *rows], right=())


def _said(path: Path, root: Path) -> str:
    """The first sentence of the comment at the head of a file, or of the criterion that it is about."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line != "# @package _global_"]
    comment = " ".join(line[2:] for line in itertools.takewhile(lambda line: line.startswith("# "), lines))
    code = root / "src/dcodp" / path.parent.name / "criteria" / f"{path.stem}.py"
    if code.is_file() and not comment:
        comment = " ".join((ast.get_docstring(ast.parse(code.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[.;]) (?=[A-Z(])", comment)[0].strip(" .;").replace("|", "\\|")
