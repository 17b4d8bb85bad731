"""SNIP (Lee et al., ICLR 2019) for filters: how much the loss hangs on each connection, summed."""

from dcodp.calibration.gradients import GradientScores
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((GradientScores(per_batch=weights.snip),))
