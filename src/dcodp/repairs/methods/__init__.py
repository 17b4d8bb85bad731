"""The repairs by name: `methods/NAME.py` holds the repair NAME as its `REPAIR`.

A new one takes that file, and `conf/repair/NAME.yaml` for the command line. Code outside this package calls
`register(name, repair)` instead of adding a file.
"""

from dcodp.registry import Registry
from dcodp.repairs.case import Repair

REPAIRS: Registry[Repair] = Registry(__name__, "REPAIR", key="repair", kind="a repair")
names, repair_named, register = REPAIRS.names, REPAIRS.named, REPAIRS.register
