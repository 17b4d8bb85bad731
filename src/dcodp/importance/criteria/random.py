"""Uniform random scores, one draw for a group: the baseline that every criterion has to beat."""

from dcodp.importance import weights
from dcodp.importance.criterion import DrawnCriterion

CRITERION = DrawnCriterion(weights.random)
