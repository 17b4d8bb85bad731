"""What is watched in one pass over calibration images: one statistic per file, each with bounded memory.

`Evidence` holds what is known of a net, `gather` adds what calibration batches show. Whoever needs a statistic, a
criterion or a repair, asks for it by its value (`MapScores(nuclear_coupling)`); equal ones are gathered once.
"""

from dcodp.calibration.evidence import Evidence
from dcodp.calibration.gather import forward_of, gather
from dcodp.calibration.statistic import Part, Statistic, Subject

__all__ = ["Evidence", "Part", "Statistic", "Subject", "forward_of", "gather"]
