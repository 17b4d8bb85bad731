"""Who asks for a hash: a dictionary or set that decides by it, or a cache that only wants a key."""

from __future__ import annotations

import dis
import functools
from types import CodeType, FrameType

LOOKUPS = ("SUBSCR", "CONTAINS_OP", "BUILD_SET", "BUILD_MAP", "BUILD_CONST_KEY_MAP", "MAP_ADD", "SET_ADD", "UPDATE",
           "MERGE")  # fmt: skip
DECIDING = {"get", "setdefault", "pop", "add", "discard", "remove", "index", "count", "update", "fromkeys",
            "__getitem__", "__contains__", "set", "frozenset", "dict", "hash", "Counter"}  # fmt: skip


def looks_up(frame: FrameType) -> bool:
    """Whether the instruction that `frame` is at looks a key up by its value: `d[k]`, `k in d`, `d.get(k)`, …"""
    return _looks_up(frame.f_code, frame.f_lasti)


@functools.lru_cache(4096)
def _looks_up(code: CodeType, offset: int) -> bool:
    instructions = list(dis.get_instructions(code))
    at = next((i for i, x in enumerate(instructions) if x.offset == offset), None)
    if at is None:
        return True
    current = instructions[at]
    if any(word in current.opname for word in LOOKUPS):
        return True
    start = current.positions and (current.positions.lineno, current.positions.col_offset)
    for before in reversed(instructions[:at]):  # what is called begins where the call begins
        begins = before.positions and (before.positions.lineno, before.positions.col_offset)
        if before.opname.startswith("LOAD") and begins == start and isinstance(before.argval, str):
            return before.argval in DECIDING
    return False
