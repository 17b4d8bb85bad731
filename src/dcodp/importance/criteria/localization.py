"""Localization-aware (after Xie et al., Neurocomputing 2020): what the loss's part about boxes alone loses, to first
order. Deviation: theirs trains an auxiliary network on features of the boxes' surroundings; here the
detector's own loss of boxes decides."""

from dcodp.calibration.gradients import GradientScores
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((GradientScores(per_batch=weights.taylor, of="boxes"),))
