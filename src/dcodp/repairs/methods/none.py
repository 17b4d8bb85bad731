"""The sliced weights as they are."""

from dcodp.repairs.case import Repair

REPAIR = Repair((), lambda case: [])
