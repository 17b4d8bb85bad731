"""Euclidean norm of the filters."""

from dcodp.calibration.weights import Weights
from dcodp.importance import weights
from dcodp.importance.criterion import Criterion

CRITERION = Criterion((Weights(),), weights.l2)
