"""The full check of a data set: everything is read and decoded, and everything that is wrong is listed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcodp.config import DatasetConfig, splits
from dcodp.data.parsing import Listing, Notes, Problem
from dcodp.data.splits import class_counts, fingerprint, open_split, probed
from dcodp.data.types import DetectionSet, LabelledImage
from dcodp.errors import InputError
from dcodp.progress import track


@dataclass(frozen=True)
class SplitReport:
    """What one split holds; the counts and the fingerprint are of the images that are whole."""

    split: str  # "train", "val" or "test"
    name: str  # as the layout calls it: "trainval", "val2017"
    listed: int  # images in the list
    images: int
    published: int | None  # images in the official split
    difficult: int
    crowd: int
    objects: dict[str, int]  # per class, difficult ones and crowds included
    fingerprint: str
    problems: tuple[Problem, ...]  # the fatal ones in the listed order, then each kind of the others once


@dataclass(frozen=True)
class CheckReport:
    """Both splits that could be opened, and what could not be opened or does not fit together."""

    name: str
    splits: tuple[SplitReport, ...]
    errors: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """All of them, one line each: the errors first, then by split in the listed order."""
        return (*self.errors, *(str(problem) for report in self.splits for problem in report.problems))

    @property
    def ok(self) -> bool:
        """True where training and evaluation can use every image; boxes clipped or left out do not count against it."""
        return not self.errors and not any(problem.fatal for r in self.splits for problem in r.problems)


def check(config: DatasetConfig, root: Path) -> CheckReport:
    """Reads every split of the data set under `root` whole, limits and `broken` aside, and stops at no problem.

    Every annotation must parse and have its boxes' centres in its image, every image decode to its end and have the
    annotated size, and all splits have the same classes.
    """
    reports, errors, classes = [], [], set()
    for split in splits(config):
        try:
            listing = open_split(config, root, split)
            report = _check_split(config, split, listing)
        except InputError as error:
            errors.append(str(error))
            continue
        reports.append(report)
        classes.add(listing.classes)
    if len(classes) > 1:
        names = " and ".join(getattr(config, split) for split in splits(config))
        errors.append(f"{names} of {config.name} differ in their classes; give all the same")
    return CheckReport(config.name, tuple(reports), tuple(dict.fromkeys(errors)))


def _check_split(config: DatasetConfig, split: str, listing: Listing) -> SplitReport:
    items = list(track(probed(listing.items), f"checking {config.name} {split}", listing.size))
    images = tuple(item for item in items if isinstance(item, LabelledImage))
    problems, notes = [item for item in items if isinstance(item, Problem)], Notes()
    for problem in problems:
        if not problem.fatal:
            notes.add(problem)
    whole = DetectionSet(config.name, split, listing.classes, images, category_ids=listing.category_ids)
    return SplitReport(
        split=split,
        name=getattr(config, split),
        listed=listing.size,
        images=len(images),
        published=getattr(config, f"published_{split}"),
        difficult=sum(int(image.difficult.sum()) for image in images),
        crowd=sum(int(image.crowd.sum()) for image in images),
        objects=class_counts(whole),
        fingerprint=fingerprint(whole),
        problems=(*(problem for problem in problems if problem.fatal), *notes.summed()),
    )
