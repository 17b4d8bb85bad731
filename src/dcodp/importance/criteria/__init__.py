"""The criteria by name: `criteria/NAME.py` holds the criterion NAME as its `CRITERION`.

A new one takes that file, and `conf/importance/NAME.yaml` for the command line. Code outside this package calls
`register(name, criterion)` instead of adding a file.
"""

from dcodp.importance.criterion import Criterion
from dcodp.registry import Registry

CRITERIA: Registry[Criterion] = Registry(__name__, "CRITERION", key="importance", kind="a criterion")
names, criterion, register = CRITERIA.names, CRITERIA.named, CRITERIA.register
