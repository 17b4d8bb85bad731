"""Euclidean norm of the filters."""

from dcodp.importance import weights
from dcodp.importance.criterion import WeightCriterion

CRITERION = WeightCriterion(weights.l2)
