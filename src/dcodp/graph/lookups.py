"""Who asks for a hash: a dictionary or set that decides by it, or a cache that only wants a key."""

from __future__ import annotations

import dis
import functools
from collections.abc import Iterator
from types import CodeType, FrameType, MethodType
from typing import Any

LOOKUPS = ("SUBSCR", "CONTAINS_OP", "BUILD_SET", "BUILD_MAP", "BUILD_CONST_KEY_MAP", "MAP_ADD", "SET_ADD", "UPDATE",
           "MERGE")  # fmt: skip
NAMES = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")


def looks_up(frame: FrameType) -> bool:
    """Whether what `frame` is doing decides by a key's value: `d[k]`, `k in d`, `d.get(k)`, any call but a cache's."""
    found = _callee(frame.f_code, frame.f_lasti)
    return found is None or not _is_cache(_resolved(frame, found))


def _is_cache(called: Any) -> bool:
    while not isinstance(called, functools._lru_cache_wrapper):
        inner = getattr(called, "func", None) if isinstance(called, functools.partial) else None
        called = called.__func__ if isinstance(called, MethodType) else inner
        if called is None:
            return False
    return True


def _resolved(frame: FrameType, path: tuple[str, ...]) -> Any:
    """What `name.attribute.…` means in a frame; None where it cannot be told."""
    name, *attributes = path
    for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
        if name in names:
            value = names[name]
            break
    else:
        return None
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return value


@functools.lru_cache(4096)
def _callee(code: CodeType, offset: int) -> tuple[str, ...] | None:
    """The dotted name of what the instruction at `offset` calls; None where it looks up, or calls something else."""
    instructions = list(dis.get_instructions(code))
    at = next((i for i, x in enumerate(instructions) if x.offset == offset), None)
    if at is None or any(word in instructions[at].opname for word in LOOKUPS):
        return None
    start = _start(instructions[at])
    for i in range(at - 1, -1, -1):  # what is called begins where the call begins
        if _start(instructions[i]) == start and instructions[i].opname in NAMES:
            return (str(instructions[i].argval), *_attributes(instructions[i + 1 : at]))
    return None


def _start(instruction: dis.Instruction) -> tuple[int | None, int | None] | None:
    position = instruction.positions
    return None if position is None else (position.lineno, position.col_offset)


def _attributes(instructions: list[dis.Instruction]) -> Iterator[str]:
    for instruction in instructions:
        if instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return
        yield str(instruction.argval)
