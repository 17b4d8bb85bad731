"""Numbers of a trace that the model's code has kept somewhere (a dictionary, an attribute) become plain ints again."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import nn

from dcodp.graph.sizes import TracedInt

ALONE = 3  # references to a number that nobody keeps: the list that is looked through, the variable, the question


def release(made: list[TracedInt], copy: Iterable[nn.Module]) -> None:
    """`made`: all numbers of the trace but those that the attributes of its copy of the model began with; emptied.
    `copy`: the copy's modules, which may keep what they like, as they are given up."""
    in_copy = _references([vars(module) for module in copy])
    kept = [number for number in made if sys.getrefcount(number) > ALONE + in_copy[id(number)]]
    made.clear()
    if not kept:
        return
    ids = {id(number) for number in kept}
    for holder in gc.get_referrers(*kept):
        if holder is kept:
            continue
        if type(holder) is dict or isinstance(holder, dict):
            _replace(holder, list(holder.items()), ids)
        elif isinstance(holder, list):
            _replace(holder, list(enumerate(holder)), ids)


def _references(trees: Iterable[Any]) -> Counter[int]:
    """id of a number → how often nested lists, tuples and dictionaries refer to it; each of them is looked at once."""
    found: Counter[int] = Counter()
    seen, pending = set(), list(trees)
    while pending:
        for value in _parts(pending.pop()):
            if type(value) is TracedInt:
                found[id(value)] += 1
            elif isinstance(value, list | tuple | dict) and value and id(value) not in seen:
                seen.add(id(value))
                pending.append(value)
    return found


def _parts(tree: Any) -> Iterable[Any]:
    return list(tree.values()) if isinstance(tree, dict) else tree


def _replace(holder: Any, entries: list[tuple[Any, Any]], ids: set[int]) -> None:
    for key, value in entries:
        if id(value) in ids:
            holder[key] = value.number
