"""What is done to a pruned net without labels, before it is trained further: each repair says what it requires."""

from dcodp.repairs.case import Case, Repair
from dcodp.repairs.mend import repair
from dcodp.repairs.methods import names, register, repair_named

__all__ = ["Case", "Repair", "names", "register", "repair", "repair_named"]
