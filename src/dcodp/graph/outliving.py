"""Numbers of a trace that the model's code has kept somewhere (a dictionary, an attribute) become plain ints again."""

from __future__ import annotations

import gc
import sys
from typing import Any

from dcodp.graph.sizes import TracedInt

ALONE = 3  # references to a number that nobody keeps: the list that is looked through, the variable, the question


def release(made: list[TracedInt]) -> None:
    """`made`: all numbers of the trace but those in the attributes of its copy of the model; emptied."""
    kept = [number for number in made if sys.getrefcount(number) > ALONE]
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


def _replace(holder: Any, entries: list[tuple[Any, Any]], ids: set[int]) -> None:
    for key, value in entries:
        if id(value) in ids:
            holder[key] = value.number
