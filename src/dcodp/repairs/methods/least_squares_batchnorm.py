"""Least squares of the consumers, then batch norms corrected for what that could not bring back."""

from dcodp.repairs.case import Case, Repair
from dcodp.repairs.methods import batchnorm, least_squares


def mend(case: Case) -> list[str]:
    return [*least_squares.mend(case), *batchnorm.mend(case)]


REPAIR = Repair(least_squares.REPAIR.requires, mend, single="least_squares")
