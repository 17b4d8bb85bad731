"""A folder of one's own criteria, repairs and detectors: paths.own=FOLDER, one file each, nothing changed elsewhere.

FOLDER/criteria/NAME.py    holds CRITERION, and FOLDER/conf/importance/NAME.yaml its settings
       repairs/NAME.py     holds REPAIR,    and FOLDER/conf/repair/NAME.yaml
       detectors/NAME.py   holds build(model, classes), and FOLDER/conf/model/ANY.yaml with `family: NAME`
"""

from __future__ import annotations

from pathlib import Path

from dcodp.errors import InputError

KEY = "paths.own="


def use(folder: str | Path | None) -> None:
    """Look for names in this folder too, after those of the project. Raises InputError where it is no folder."""
    if folder is None:
        return
    place = Path(folder).resolve()
    if not place.is_dir():
        raise InputError(f"paths.own={folder} is no folder; give the one with criteria/NAME.py, repairs/NAME.py, …")
    from dcodp.detectors.families import FAMILIES  # these need torch: only where there is something to find
    from dcodp.importance.criteria import CRITERIA
    from dcodp.repairs.methods import REPAIRS

    for kind, registry in {"criteria": CRITERIA, "repairs": REPAIRS, "detectors": FAMILIES}.items():
        registry.look_in(place / kind)


def configuration(words: list[str]) -> Path | None:
    """The folder of configuration files that a command line's paths.own=FOLDER brings along."""
    typed = [Path(word.removeprefix(KEY)) / "conf" for word in words if word.startswith(KEY)]
    return typed[-1] if typed and typed[-1].is_dir() else None
