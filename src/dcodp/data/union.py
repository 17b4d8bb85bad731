"""Splits of the VOC layout by name, several of them joined where the name says so: the 07+12 training set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dcodp.data import voc
from dcodp.data.parsing import Listing, Problem
from dcodp.data.types import LabelledImage
from dcodp.errors import InputError


def open_split(root: Path, year: str, split: str) -> Listing:
    """ "trainval" of `year` ("VOC2007"), or "VOC2007/trainval+VOC2012/trainval": one list after the other.

    Raises InputError where one of them is missing, or is named twice.
    """
    parts = split.split("+")
    if len(set(parts)) < len(parts):
        raise InputError(f"the split {split} names a part twice; name each once")
    listings = [_open_part(root, year, part) for part in parts]
    return listings[0] if len(listings) == 1 else _joined(parts, listings)


def _open_part(root: Path, year: str, part: str) -> Listing:
    named, _, split = part.rpartition("/")
    return voc.open_split(voc.find(root, named or year), split)


def _joined(parts: Sequence[str], listings: Sequence[Listing]) -> Listing:
    return Listing(listings[0].classes, sum(listing.size for listing in listings), _once(parts, listings))


def _once(parts: Sequence[str], listings: Sequence[Listing]) -> Iterator[LabelledImage | Problem]:
    """Images are told apart by their names, so a name that two parts share is a problem of the later one."""
    owner: dict[str, str] = {}
    for part, listing in zip(parts, listings, strict=True):
        for item in listing.items:
            if isinstance(item, LabelledImage) and owner.setdefault(item.id, part) != part:
                yield Problem(item.path, f"has the name of an image of {owner[item.id]}; leave one of them out")
            else:
                yield item
