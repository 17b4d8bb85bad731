"""LAMP (Lee et al., ICLR 2021) with filters in place of single weights.

Made to be compared between layers (allocation=global with aggregate=mean or max); within one layer it orders filters as
their norms do.
"""

from dcodp.calibration.weights import Weights
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((Weights(),), weights.lamp, scale="net")
