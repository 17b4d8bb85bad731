"""The runs of a results folder as a study that can be committed: one file of records, one of their epochs.

python results/keep.py RESULTS results/STUDY     then name its tables in results/render.py, and: make results
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from dcodp.errors import InputError
from dcodp.records import load_records, write_metrics, write_study


def main(words: Sequence[str]) -> None:
    if len(words) != 2:
        raise InputError("give a results folder and the folder of the study to write")
    results, study = map(Path, words)
    records = load_records(results)
    if not records:
        raise InputError(f"no records in {results / 'runs'}; give the folder that holds runs/")
    path = write_study(study, records)
    write_metrics(study, results, [record.run_id for record in records])
    print(f"{path}: {len(records)} records")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
