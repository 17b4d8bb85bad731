"""The same as `dcodp run`, one cell or with -m a sweep: python run.py [-m] key=value …  (all keys: run.py --help)."""

import sys

from dcodp.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
